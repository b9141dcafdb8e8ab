use std::{collections::BTreeMap, process::Stdio};

use super::*;

/// Name and value of an environment, in either form that YAML has for them.
pub(super) fn environment(value: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match value {
        Value::Object(fields) => fields.iter().map(|(n, v)| (n.clone(), text(v))).collect(),
        Value::Array(items) => {
            let pair = |item: &Value| (text(&item["name"]), text(&item["value"]));
            items.iter().map(pair).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// Every variable is one of the command's.
pub(super) fn check_environment(command: &str, value: &Value) {
    let help = Help::of(command);
    let known = help.variables();
    for name in environment(value).keys() {
        assert!(known.contains(name.as_str()), "{command}: {name}");
    }
}

pub(super) fn time(value: &Value) -> Duration {
    humantime::parse_duration(value.as_str().unwrap()).unwrap()
}

/// The part of a port mapping that is inside: `127.0.0.1:1:2` → `2`.
pub(super) fn inner_ports(value: &Value) -> Vec<&str> {
    let ports = texts(value).into_iter();
    ports.map(|port| port.rsplit(':').next().unwrap()).collect()
}

#[test]
fn the_compose_file_says_what_the_binary_knows() {
    let compose = yaml("deploy/compose.yaml").remove(0);
    let services = compose["services"].as_object().unwrap();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    for name in [
        "chatd",
        "auth",
        "postgres",
        "jaeger",
        "prometheus",
        "grafana",
    ] {
        assert!(names.contains(&name), "{name} is missing");
    }
    let (serve, auth) = (Help::of("serve"), Help::of("auth"));
    let chatd = &services["chatd"];
    check_environment("serve", &chatd["environment"]);
    let ports = [serve.default("grpc-port"), serve.default("http-port")];
    assert_eq!(inner_ports(&chatd["ports"]), ports);
    let probe = texts(&chatd["healthcheck"]["test"]);
    assert_eq!(probe[..2], ["CMD", "chatd"]);
    Help::check_line(&probe[2..]);
    assert!(time(&chatd["stop_grace_period"]) > serve.default_time("drain-timeout"));

    Help::check_line(&texts(&services["auth"]["command"]));
    check_environment("auth", &services["auth"]["environment"]);
    let of_auth = environment(&services["auth"]["environment"]);
    assert_eq!(of_auth["AUTH_PORT"], auth.default("auth-port"));
    let of_chatd = environment(&chatd["environment"]);
    assert_eq!(of_chatd["ACCESS_CLIENT_PORT"], of_auth["AUTH_PORT"]);
    // Hosts are services, and mounted files are here.
    for text in all(&compose).into_iter().filter_map(Value::as_str) {
        if let Some(path) = text.strip_prefix("./") {
            let path = root().join("deploy").join(path.split(':').next().unwrap());
            assert!(path.is_file(), "{}", path.display());
        }
    }
    let dsn: tokio_postgres::Config = of_chatd["PG_DSN"].parse().unwrap();
    let postgres = environment(&services["postgres"]["environment"]);
    assert_eq!(dsn.get_dbname(), Some(&*postgres["POSTGRES_DB"]));
    assert_eq!(dsn.get_user(), Some(&*postgres["POSTGRES_USER"]));
    let otlp: http::Uri = of_chatd["OTLP_ENDPOINT"].parse().unwrap();
    for host in [
        &of_chatd["ACCESS_CLIENT_HOST"],
        "postgres",
        otlp.host().unwrap(),
    ] {
        assert!(names.contains(&host), "{host}");
    }
}

#[tokio::test]
async fn the_kubernetes_manifests_say_what_the_binary_knows() {
    let documents = yaml("deploy/kubernetes/chatd.yaml");
    let kind = |kind: &str| documents.iter().find(|d| d["kind"] == kind).expect(kind);
    let labels = &kind("Deployment")["spec"]["template"]["metadata"]["labels"];
    let pod = &kind("Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let serve = Help::of("serve");
    Help::check_line(&texts(&container["args"]));
    check_environment("serve", &container["env"]);
    let ports = container["ports"].as_array().unwrap();
    let port = |name: &str| {
        let port = ports.iter().find(|port| port["name"] == name);
        port.unwrap()["containerPort"].to_string()
    };
    assert_eq!(port("grpc"), serve.default("grpc-port"));
    assert_eq!(port("http"), serve.default("http-port"));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let asked = &container[probe]["httpGet"];
        assert_eq!(asked["port"], "http", "{probe}");
        let path = asked["path"].as_str().unwrap();
        assert_eq!(get(path).await.0, 200, "{probe}: {path}");
    }
    let annotations = &kind("Deployment")["spec"]["template"]["metadata"]["annotations"];
    let scraped = annotations["prometheus.io/path"].as_str().unwrap();
    assert!(get(scraped).await.1.contains("chat_calls_total"));
    assert_eq!(annotations["prometheus.io/port"], port("http").as_str());

    let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
    let env = environment(&container["env"]);
    let drain = humantime::parse_duration(&env["DRAIN_TIMEOUT"]).unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64();
    assert!(grace.unwrap() >= pause.unwrap() + drain.as_secs() + 5);

    for (kind_of, selector) in [
        ("Service", &kind("Service")["spec"]["selector"]),
        (
            "PodDisruptionBudget",
            &kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        ),
        (
            "Deployment",
            &kind("Deployment")["spec"]["selector"]["matchLabels"],
        ),
    ] {
        assert_eq!(selector, labels, "{kind_of}");
    }
    for port in kind("Service")["spec"]["ports"].as_array().unwrap() {
        assert!(
            ports
                .iter()
                .any(|named| named["name"] == port["targetPort"])
        );
    }
    // As the image has it.
    let user = pod["securityContext"]["runAsUser"].to_string();
    assert!(read("Dockerfile").contains(&format!("USER {user}:{user}")));
}

#[test]
fn the_systemd_unit_starts_the_binary_and_waits_for_its_drain() {
    let unit = read("deploy/systemd/chatd.service");
    let setting = |name: &str| {
        let line = unit
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} is missing"))
    };
    let line: Vec<&str> = setting("ExecStart").split(' ').collect();
    Help::check_line(&line[1..]);
    let stop = humantime::parse_duration(setting("TimeoutStopSec")).unwrap();
    assert!(stop > Help::of("serve").default_time("drain-timeout"));

    // What is left needs systemd itself.
    if Command::new("systemd-analyze")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!("systemd-analyze is not here: the unit's settings are not checked");
        return;
    }
    let (_folder, path) = temp();
    let file = path.join("chatd.service");
    fs::write(&file, unit.replace(line[0], BINARY)).unwrap();
    for arguments in [
        &["verify", "--man=no"][..],
        &["security", "--offline=yes", "--threshold=15"],
    ] {
        let checked = Command::new("systemd-analyze")
            .args(arguments)
            .arg(&file)
            .output();
        let checked = checked.unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{arguments:?}: {said}");
        // An unknown setting is only a warning.
        assert!(!said.contains("chatd.service:"), "{said}");
    }
}

#[tokio::test]
async fn prometheus_and_the_dashboard_ask_for_what_there_is() {
    let (_, scraped) = get("/metrics").await;
    let mut there = BTreeSet::new();
    for line in scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
    {
        let (name, kind) = line.split_once(' ').unwrap();
        match kind {
            "histogram" => {
                there.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")))
            }
            "counter" if !name.ends_with("_total") => drop(there.insert(format!("{name}_total"))),
            _ => drop(there.insert(name.to_owned())),
        }
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/chatd.json")).unwrap();
    let mut asked = BTreeSet::new();
    for target in all(&dashboard)
        .into_iter()
        .filter_map(|value| value["expr"].as_str())
    {
        let words = target.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        asked
            .extend(words.filter(|word| word.starts_with("chat_") || word.starts_with("process_")));
    }
    for name in &asked {
        assert!(there.contains(*name), "{name} is not in /metrics");
    }
    // And nothing is left out.
    for metric in chat_service::telemetry::names::ALL {
        assert!(
            asked.iter().any(|name| name.starts_with(metric.name)),
            "{}",
            metric.name
        );
    }

    let prometheus = yaml("deploy/prometheus.yaml").remove(0);
    let job = &prometheus["scrape_configs"][0];
    assert_eq!(job["metrics_path"], "/metrics");
    let target = format!("chatd:{}", Help::of("serve").default("http-port"));
    assert_eq!(texts(&job["static_configs"][0]["targets"]), [target]);
    let sources = yaml("deploy/grafana/datasources.yaml").remove(0);
    let source = &sources["datasources"][0]["uid"];
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(
        panels
            .iter()
            .all(|panel| panel["datasource"]["uid"] == *source)
    );
    let mounted = yaml("deploy/grafana/dashboards.yaml").remove(0);
    let folder = mounted["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(read("deploy/compose.yaml").contains(&format!("{folder}/chatd.json")));
}

/// The users of the compose file can log in.
#[test]
fn the_users_of_the_compose_file_have_the_passwords_it_says() {
    let (_folder, path) = temp();
    let users = root().join("deploy/users.toml");
    let steps = r#"
        exec 3< <(exec chatd auth --auth-port 0 --users "$USERS_FILE" --token-secret secret --config-path "" 2>log & echo $!; wait)
        read -r pid <&3; read -r _ _ address <&3
        trap 'kill "$pid"' EXIT
        echo wonderland | chatd login alice --auth-addr "$address" --token-file alice
        echo looking-glass | chatd login bob --auth-addr "$address" --token-file bob
        ! echo wonderland | chatd login bob --auth-addr "$address" --token-file no
    "#;
    shell(steps, &path, &[("USERS_FILE", users.to_str().unwrap())]);
    assert!(path.join("alice").is_file() && path.join("bob").is_file());
}
