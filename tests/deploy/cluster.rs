//! The files for several nodes, and what the pages about them name.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Stdio},
    time::Instant,
};

use chat_service::{cluster::Status, telemetry::names};

use super::{
    files::{check_environment, environment, inner_ports, time},
    *,
};
use crate::{
    pg::{Pg, process::binary},
    server::{PATIENCE, Server},
};

const NODES: [&str; 3] = ["node1", "node2", "node3"];

const PAGES: [&str; 2] = ["docs/cluster.md", "deploy/UPGRADE.md"];

/// What the configurations of NATS take from the environment.
const NATS: [(&str, &str); 7] = [
    ("NATS_PASSWORD", "p1"),
    ("STAGING_PASSWORD", "p2"),
    ("POD_NAME", "nats-0"),
    ("ROUTE_PASSWORD", "r1"),
    ("ROUTE_0", "nats-route://route:r1@127.0.0.1:16220"),
    ("ROUTE_1", "nats-route://route:r1@127.0.0.1:16221"),
    ("ROUTE_2", "nats-route://route:r1@127.0.0.1:16222"),
];

/// A NATS server, killed when dropped.
struct Nats(Child);

impl Drop for Nats {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn document<'d>(documents: &'d [Value], kind: &str, name: &str) -> &'d Value {
    let is_it = |one: &&Value| one["kind"] == kind && one["metadata"]["name"] == name;
    let found = documents.iter().find(is_it);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The first value of this name, wherever it is.
fn value<'v>(below: &'v Value, name: &str) -> &'v Value {
    let found = all(below).into_iter().find_map(|value| value.get(name));
    found.unwrap_or_else(|| panic!("{name} is missing"))
}

/// NATS reads the configuration, and it lets nodes use their subjects and no others.
fn check_nats(conf: &str) {
    let subjects = format!("chatd.{}.n.*", Help::of("serve").default("cluster-name"));
    for right in ["publish", "subscribe"] {
        let given = format!("{right}: \"{subjects}\"");
        assert!(conf.contains(&given), "{given} is missing");
    }
    let (_folder, path) = temp();
    let file = path.join("nats.conf");
    fs::write(&file, conf).unwrap();
    let checked = Command::new(binary("nats-server"))
        .args(["-t", "-c"])
        .arg(&file)
        .envs(NATS)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}");
}

/// A server would take these values of the environment.
fn check_cluster(env: &BTreeMap<String, String>) {
    let flags = [
        "--store",
        "postgres://chat@127.0.0.1/chat",
        "--cluster",
        &env["CLUSTER"],
    ];
    serve_from(&flags).unwrap();
}

#[test]
fn the_compose_file_of_a_cluster_says_what_the_binary_knows() {
    let compose = yaml("deploy/compose-cluster.yaml").remove(0);
    let services = compose["services"].as_object().unwrap();
    let serve = Help::of("serve");
    let published = |service: &str| -> String {
        let port = texts(&services[service]["ports"]).remove(0);
        format!("http://{}", port.rsplit_once(':').unwrap().0)
    };
    let nats = environment(&services["nats"]["environment"]);
    for name in NODES {
        let node = &services[name];
        check_environment("serve", &node["environment"]);
        let env = environment(&node["environment"]);
        check_cluster(&env);
        assert_eq!(env["NODE_NAME"], name);
        let password = format!("nats://chatd:{}@nats:4222", nats["NATS_PASSWORD"]);
        assert_eq!(env["CLUSTER"], password);
        // A page of any node calls the balancer.
        assert_eq!(env["GRPC_WEB_URL"], published("balancer"));
        let origins: Vec<&str> = env["CORS_ORIGINS"].split(',').collect();
        assert!(origins.contains(&published(name).as_str()), "{origins:?}");
        assert_eq!(inner_ports(&node["ports"]), [serve.default("http-port")]);
        let probe = texts(&node["healthcheck"]["test"]);
        assert_eq!(probe[..2], ["CMD", "chatd"]);
        Help::check_line(&probe[2..]);
        assert!(time(&node["stop_grace_period"]) > serve.default_time("drain-timeout"));
        let dsn: tokio_postgres::Config = env["PG_DSN"].parse().unwrap();
        let postgres = environment(&services["postgres"]["environment"]);
        assert_eq!(dsn.get_dbname(), Some(&*postgres["POSTGRES_DB"]));
        assert_eq!(dsn.get_user(), Some(&*postgres["POSTGRES_USER"]));
    }
    Help::check_line(&texts(&services["auth"]["command"]));
    check_environment("auth", &services["auth"]["environment"]);
    for text in all(&compose).into_iter().filter_map(Value::as_str) {
        if let Some(path) = text.strip_prefix("./") {
            let path = root().join("deploy").join(path.split(':').next().unwrap());
            assert!(path.is_file(), "{}", path.display());
        }
    }

    let prometheus = yaml("deploy/prometheus-cluster.yaml").remove(0);
    let job = &prometheus["scrape_configs"][0];
    let targets = NODES.map(|name| format!("{name}:{}", serve.default("http-port")));
    assert_eq!(texts(&job["static_configs"][0]["targets"]), targets);
}

#[tokio::test]
async fn the_balancer_knows_the_nodes_and_cuts_no_stream() {
    let envoy = yaml("deploy/balancer/envoy.yaml").remove(0);
    let port = Help::of("serve").default("grpc-port").to_owned();
    let cluster = &envoy["static_resources"]["clusters"][0];
    let endpoints = all(&cluster["load_assignment"]);
    let endpoints = endpoints.iter().filter_map(|one| one.get("socket_address"));
    let endpoints: Vec<(&str, String)> = endpoints
        .map(|one| {
            (
                one["address"].as_str().unwrap(),
                one["port_value"].to_string(),
            )
        })
        .collect();
    assert_eq!(endpoints, NODES.map(|name| (name, port.clone())));
    let listener = &envoy["static_resources"]["listeners"][0];
    let compose = yaml("deploy/compose-cluster.yaml").remove(0);
    let inner = value(&listener["address"], "port_value").to_string();
    assert_eq!(
        inner_ports(&compose["services"]["balancer"]["ports"]),
        [inner.as_str()]
    );

    let asked = &cluster["health_checks"][0]["http_health_check"]["path"];
    assert_eq!(get(asked.as_str().unwrap()).await.0, 200);
    let port = value(cluster, "health_check_config")["port_value"].to_string();
    assert_eq!(port, Help::of("serve").default("http-port"));
    assert_eq!(value(listener, "stream_idle_timeout"), "0s");
    assert_eq!(value(listener, "route")["timeout"], "0s");
    // Slow readers can't fill the connection that they share.
    let upstream = value(cluster, "http2_protocol_options");
    let number = |name: &str| upstream[name].as_u64().unwrap();
    let most = number("max_concurrent_streams") * number("initial_stream_window_size");
    assert!(number("initial_connection_window_size") >= most);
}

#[test]
fn the_kubernetes_manifests_of_a_cluster_say_what_the_binary_knows() {
    let documents = yaml("deploy/kubernetes/cluster.yaml");
    let nats = yaml("deploy/kubernetes/nats.yaml");
    let deployment = &document(&documents, "Deployment", "chatd")["spec"];
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];

    // What one server has is checked with its own file.
    let alone = yaml("deploy/kubernetes/chatd.yaml");
    let alone = &document(&alone, "Deployment", "chatd")["spec"]["template"];
    assert_eq!(deployment["template"]["metadata"], alone["metadata"]);
    for same in [
        "terminationGracePeriodSeconds",
        "automountServiceAccountToken",
        "securityContext",
    ] {
        assert_eq!(pod[same], alone["spec"][same], "{same}");
    }
    for same in [
        "args",
        "ports",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
        "lifecycle",
        "resources",
        "securityContext",
    ] {
        assert_eq!(
            container[same], alone["spec"]["containers"][0][same],
            "{same}"
        );
    }

    // Besides options there are parts of them.
    let env = environment(&container["env"]);
    let is_part = |name: &String| env.values().any(|one| one.contains(&format!("$({name})")));
    let serve = Help::of("serve");
    let known = serve.variables();
    for name in env.keys() {
        assert!(known.contains(name.as_str()) || is_part(name), "{name}");
    }
    check_cluster(&env);
    let servers = document(&nats, "StatefulSet", "nats")["spec"]["replicas"].as_u64();
    let servers =
        (0..servers.unwrap()).map(|n| format!("nats://chatd:$(NATS_PASSWORD)@nats-{n}.nats:4222"));
    let servers: Vec<String> = servers.collect();
    let given: Vec<&str> = env["CLUSTER"].split(',').map(str::trim).collect();
    assert_eq!(given, servers);
    let variables = container["env"].as_array().unwrap();
    let name = variables.iter().find(|one| one["name"] == "NODE_NAME");
    let from = &name.unwrap()["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(from, "metadata.name");
    let drain = humantime::parse_duration(&env["DRAIN_TIMEOUT"]).unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > drain.as_secs());

    // There are always enough of them.
    let replicas = deployment["replicas"].as_u64().unwrap();
    assert_eq!(replicas, 3);
    let rolling = &deployment["strategy"]["rollingUpdate"];
    assert_eq!(rolling["maxUnavailable"].as_u64(), Some(0));
    assert_eq!(rolling["maxSurge"].as_u64(), Some(1));
    let budget = &document(&documents, "PodDisruptionBudget", "chatd")["spec"];
    assert_eq!(budget["minAvailable"].as_u64(), Some(replicas - 1));

    let labels = &deployment["template"]["metadata"]["labels"];
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(&deployment["selector"]["matchLabels"], labels);
    assert_eq!(&budget["selector"]["matchLabels"], labels);
    assert_eq!(&spread["labelSelector"]["matchLabels"], labels);
    let ports = container["ports"].as_array().unwrap();
    for name in ["chatd", "chatd-nodes"] {
        let service = &document(&documents, "Service", name)["spec"];
        assert_eq!(&service["selector"], labels, "{name}");
        for port in service["ports"].as_array().unwrap() {
            let is_there = ports.iter().any(|one| one["name"] == port["targetPort"]);
            assert!(is_there, "{name}: {port}");
        }
    }
    let nodes = &document(&documents, "Service", "chatd-nodes")["spec"];
    assert_eq!(nodes["clusterIP"], "None");

    let migrate = yaml("deploy/kubernetes/migrate.yaml").remove(0);
    let container = &migrate["spec"]["template"]["spec"]["containers"][0];
    Help::check_line(&texts(&container["args"]));
    check_environment("migrate", &container["env"]);
}

#[test]
fn nats_reads_its_configurations() {
    check_nats(&read("deploy/nats.conf"));
    let documents = yaml("deploy/kubernetes/nats.yaml");
    let conf = &document(&documents, "ConfigMap", "nats")["data"]["nats.conf"];
    check_nats(conf.as_str().unwrap());
    let page = read("docs/cluster.md");
    let block = page.split("```conf\n").nth(1).unwrap();
    check_nats(block.split("```").next().unwrap());

    // Probes ask it where it listens.
    let nats = document(&documents, "StatefulSet", "nats");
    let container = &nats["spec"]["template"]["spec"]["containers"][0];
    for port in container["ports"].as_array().unwrap() {
        let line = format!("port: {}\n", port["containerPort"]);
        assert!(conf.as_str().unwrap().contains(&line), "{line}");
    }
    let given: Vec<String> = environment(&container["env"]).into_keys().collect();
    for word in conf.as_str().unwrap().split('$').skip(1) {
        let name = word.split(|c: char| c != '_' && !c.is_ascii_alphanumeric());
        let name = name.take(1).collect::<String>();
        assert!(given.contains(&name), "{name} is not given to NATS");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_hear_each_other_with_what_nats_lets_them() {
    let any = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = any.local_addr().unwrap().port();
    drop(any);
    let (_folder, path) = temp();
    let file = path.join("nats.conf");
    let conf = read("deploy/nats.conf").replace("port: 4222", &format!("port: {port}"));
    fs::write(&file, conf).unwrap();
    let nats = Command::new(binary("nats-server"))
        .args(["-a", "127.0.0.1", "-c"])
        .arg(&file)
        .envs(NATS)
        .stderr(Stdio::null())
        .spawn();
    let _nats = Nats(nats.unwrap());
    let pg = Pg::start();
    let dsn = pg.tcp_dsn("postgres");
    let url = format!("nats://chatd:p1@127.0.0.1:{port}");
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let flags = ["--store", &dsn, "--cluster", &url, "--node-name", name];
        nodes.push(Server::start(&flags).await);
    }
    let start = Instant::now();
    loop {
        let (code, said) = crate::ops::get(nodes[0].http_address(), "/cluster").await;
        assert_eq!(code, 200, "{said}");
        let status: Value = serde_json::from_str(&said).unwrap();
        let others = status["nodes"].as_array().unwrap().iter();
        let heard = others.filter(|node| node["heard_ms"].is_u64()).count();
        if status["on_bus"] == true && heard == 1 {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{said}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn the_drop_in_makes_a_node_of_the_unit() {
    let drop_in = read("deploy/systemd/cluster.conf");
    let known = Help::of("serve");
    let known = known.variables();
    // What is commented out is for some, and has to be right as well.
    let lines = drop_in.lines().map(|line| line.trim_start_matches('#'));
    let pairs = lines.filter_map(|line| line.strip_prefix("Environment="));
    let names = pairs.flat_map(|pairs| pairs.split(' '));
    let names: Vec<&str> = names.map(|pair| pair.split('=').next().unwrap()).collect();
    assert!(names.contains(&"NODE_NAME"), "{names:?}");
    for name in names {
        assert!(known.contains(name), "{name}");
    }
    let given = drop_in
        .lines()
        .find_map(|line| line.strip_prefix("#   CLUSTER="));
    check_cluster(&BTreeMap::from([(
        "CLUSTER".to_owned(),
        given.unwrap().to_owned(),
    )]));

    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("systemd-analyze is not here: the drop-in's settings are not checked");
        return;
    }
    let (_folder, path) = temp();
    let file = path.join("chatd.service");
    let unit = read("deploy/systemd/chatd.service").replace("/usr/local/bin/chatd", BINARY);
    fs::write(&file, unit).unwrap();
    fs::create_dir(path.join("chatd.service.d")).unwrap();
    let settings: Vec<&str> = drop_in
        .lines()
        .map(
            |line| match line.starts_with("#Load") || line.starts_with("#Env") {
                true => &line[1..],
                false => line,
            },
        )
        .collect();
    let drop_in = path.join("chatd.service.d/cluster.conf");
    fs::write(drop_in, settings.join("\n") + "\n").unwrap();
    let checked = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}");
    assert!(!said.contains("cluster.conf:"), "{said}");
}

/// Options, metrics and fields of the pages about several nodes.
#[test]
fn the_pages_about_a_cluster_name_what_there_is() {
    let serve = Help::of("serve");
    let status = Status {
        nodes: vec![Default::default()],
        ..Status::default()
    };
    let status = serde_json::to_value(status).unwrap();
    let mut fields: BTreeSet<&String> = BTreeSet::new();
    for value in all(&status) {
        fields.extend(
            value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name),
        );
    }
    for page in PAGES {
        let text = read(page);
        // What is in backquotes, blocks of code left out.
        let prose = text.split("```").step_by(2).collect::<String>();
        let quoted: Vec<&str> = prose.split('`').skip(1).step_by(2).collect();
        for word in &quoted {
            if let Some(flag) = word.strip_prefix("--") {
                let flag = flag.split(' ').next().unwrap();
                assert!(serve.0.contains(&format!("--{flag} <")), "{page}: {word}");
            }
            if word.starts_with("chat_") && !word.contains('.') {
                let is_there = names::ALL.iter().any(|metric| {
                    *word == metric.name || *word == format!("{}_total", metric.name)
                });
                assert!(is_there, "{page}: {word}");
            }
        }
    }
    let page = read("docs/cluster.md");
    let rows = page.split("| field | |").nth(1).unwrap();
    let rows = rows.split("\n\n").next().unwrap();
    for field in fields {
        assert!(rows.contains(&format!("`{field}`")), "{field} is missing");
    }
}
