//! The binary: the allocator, the command line, exit codes. 0: done. 1: it was
//! asked for properly and failed. 2: it was not asked for properly. Either
//! failure says why in one line on standard error.

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

use chat_service::{
    admin, app, client,
    config::{self, Command},
    reference, runtime, telemetry,
};

// Small allocations made on one thread and freed on another are this server's
// daily bread; the system's allocator takes a lock for them.
#[global_allocator]
static GLOBAL: runtime::Heap = runtime::Heap;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let command = match config::from_process(std::env::args_os()) {
        Ok(command) => command,
        Err(refusal) => return fail(MISUSED, &refusal),
    };
    let done = match command {
        Command::Print(text) => {
            // A reader that went away (`| head`) has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            Ok(())
        }
        Command::Serve(config) => init_logs(&config.log_level, config.log_format)
            .and_then(|log| app::run(*config, log.level()).map_err(in_full)),
        Command::Doctor(config) => app::doctor(config),
        Command::Health(config) => {
            let path = if config.ready { "/ready" } else { "/live" };
            admin::ask(config.address, path)
        }
        Command::Cluster(config) => admin::show_cluster(&config),
        Command::Auth(config) => init_logs(&config.log_level, config.log_format)
            .and_then(|_log| reference::run(config).map_err(in_full)),
        Command::HashPassword => client::hash_password().map_err(in_full),
        Command::Login(config) => client::login(config).map_err(in_full),
        Command::Migrate(store) => app::migrate(&store).map_err(in_full),
        Command::Create(config) => client::create(config).map_err(in_full),
        Command::Connect(config) if config.chat.is_none() && !client::on_screen(&config) => {
            return fail(MISUSED, &client::ClientError::NoChat);
        }
        Command::Connect(config) => client::connect(config).map_err(in_full),
        Command::Send(config) => client::send(config).map_err(in_full),
        Command::History(config) => client::history(config).map_err(in_full),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(FAILED, &why),
    }
}

fn init_logs(level: &str, format: config::LogFormat) -> Result<telemetry::Log, String> {
    telemetry::init_logs(level, log_format(format)).map_err(in_full)
}

fn in_full(error: impl Error + 'static) -> String {
    telemetry::chain(&error).to_string()
}

fn log_format(format: config::LogFormat) -> telemetry::LogFormat {
    match format {
        config::LogFormat::Auto => telemetry::LogFormat::Auto,
        config::LogFormat::Pretty => telemetry::LogFormat::Pretty,
        config::LogFormat::Json => telemetry::LogFormat::Json,
    }
}

fn fail(code: u8, why: &dyn Display) -> ExitCode {
    let line = why.to_string().replace(char::is_control, " ");
    // Without a standard error there is nobody to tell, and the code remains.
    let _ = writeln!(io::stderr(), "chatd: {line}");
    ExitCode::from(code)
}
