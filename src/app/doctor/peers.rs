use std::{
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Report, Verdict};
use crate::{
    app::{AppError, plan},
    auth::{Ask, Asker, AuthError, Authenticator, Token},
    config::{AccessConfig, AuthChoice, ServeConfig},
    domain::Clock,
    runtime::{Cores, SystemClock, Tls},
    telemetry::{Metrics, chain},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Who renews a certificate by hand needs about so long.
const RENEW_WITHIN: Duration = Duration::from_secs(14 * 24 * 3600);

/// A JWT that nobody has signed, of the user `chatd-doctor`: an Auth Service has
/// to refuse it, which is an answer.
const UNSIGNED: &str = "eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6ImNoYXRkLWRvY3RvciIsInJvbGUiOiIwIiwi\
    ZXhwIjo0MTAyNDQ0ODAwfQ.bm9uZQ";
const ASKED_FOR: &str = "/chat_v1.ChatV1/Get";

pub fn auth(config: &ServeConfig, report: &mut Report) {
    let cores = match Cores::start(1) {
        Ok(cores) => cores,
        Err(error) => return report.line(Verdict::Fail, "auth", chain(&error)),
    };
    let made = || -> Result<Arc<dyn Authenticator>, AppError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Metrics::new(1);
        plan::auth(config, &clock, cores.spawner(0), &metrics)
    };
    match (made(), &config.auth) {
        (Err(error), _) => report.line(Verdict::Fail, "auth", chain(&error)),
        (Ok(_), AuthChoice::Dev) => {
            let text = "development mode: any name is believed; for this machine only";
            report.line(Verdict::Warn, "auth", text);
        }
        (Ok(auth), AuthChoice::Service(access)) => service(access, auth.as_ref(), report),
        (Ok(_), AuthChoice::Jwt(_)) => report.line(Verdict::Ok, "auth", "the keys can be read"),
    }
}

/// Asks it about a token, as the server does with every one.
fn service(access: &AccessConfig, auth: &dyn Authenticator, report: &mut Report) {
    let place = format!("the Auth Service at {}:{}", access.host, access.port);
    if let Err(error) = reach(&access.host, access.port) {
        let mend = "start it or correct --access-client-host; calls are UNAVAILABLE until then";
        return report.line(Verdict::Warn, "auth", format!("{place}: {error}: {mend}"));
    }
    let ask = Ask {
        token: Token(UNSIGNED),
        method: ASKED_FOR,
        trace: None,
        asker: Asker::default(),
    };
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answer = main.map(|main| main.block_on(auth.check(ask)));
    match answer {
        Err(error) => report.line(Verdict::Fail, "auth", error),
        Ok(Ok(_)) => {
            let text = format!("{place} let an unsigned token pass: it does not check signatures");
            report.line(Verdict::Fail, "auth", text);
        }
        Ok(Err(AuthError::Unavailable)) => {
            let mend = "is it access_v1.AccessV1, and --access-client-tls as it wants?";
            let text = format!("{place} accepts connections and does not answer Check: {mend}");
            report.line(Verdict::Warn, "auth", text);
        }
        Ok(Err(AuthError::Invalid(_) | AuthError::Expired | AuthError::Denied)) => {
            report.line(Verdict::Ok, "auth", format!("{place} answers"));
        }
    }
}

pub fn tls(config: &ServeConfig, report: &mut Report) {
    match plan::tls(config) {
        Err(error) => report.line(Verdict::Fail, "tls", chain(&error)),
        Ok(Some(tls)) => dates(&tls, report),
        Ok(None) if config.grpc_host.to_canonical().is_loopback() => {
            report.line(Verdict::Ok, "tls", "off");
        }
        Ok(None) => {
            let text = "off: tokens and messages can be read on their way; --tls-cert and \
                        --tls-key turn it on";
            report.line(Verdict::Warn, "tls", text);
        }
    }
}

/// An expired certificate can be served, and no client will have it.
fn dates(tls: &Tls, report: &mut Report) {
    let now = SystemTime::now();
    let (verdict, text) = match (tls.valid_at(now), tls.valid_at(now + RENEW_WITHIN)) {
        (Err(error), _) => (Verdict::Fail, format!("{error}: renew it")),
        (Ok(()), Err(_)) => {
            let days = RENEW_WITHIN.as_secs() / (24 * 3600);
            let text = format!("a certificate expires within {days} days: renew it");
            (Verdict::Warn, text)
        }
        (Ok(()), Ok(())) => {
            let text = "certificate and key can be read, and are valid";
            (Verdict::Ok, text.to_owned())
        }
    };
    report.line(verdict, "tls", text);
}

pub fn traces(config: &ServeConfig, report: &mut Report) {
    let Some(endpoint) = &config.otlp_endpoint else {
        return report.line(Verdict::Ok, "traces", "off");
    };
    match reach_url(endpoint) {
        Ok(()) => report.line(Verdict::Ok, "traces", format!("{endpoint} accepts connections")),
        Err(error) => report.line(
            Verdict::Warn,
            "traces",
            format!("{endpoint}: {error}: start the collector or correct --otlp-endpoint; traffic does not need it"),
        ),
    }
}

fn reach_url(endpoint: &str) -> Result<(), String> {
    let url: http::Uri = endpoint.parse().map_err(|_| "not a URL".to_owned())?;
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    reach(host, url.port_u16().unwrap_or(80))
}

fn reach(host: &str, port: u16) -> Result<(), String> {
    let addresses = (host, port).to_socket_addrs();
    let address = addresses.map_err(|e| e.to_string())?.next();
    let address = address.ok_or("the name has no address")?;
    TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
        .map(drop)
        .map_err(|e| e.to_string())
}
