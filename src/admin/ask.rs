use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long a server may take over each step: longer than its own deadlines.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than any answer about health has.
const MAX_ANSWER: u64 = 4_096;

/// Asks a server that runs, from outside, as `chatd health` does.
///
/// # Errors
/// If it can't be reached, or what its answer says if that is not 200.
pub fn ask(address: SocketAddr, path: &str) -> Result<(), String> {
    let answer = get(address, path).map_err(|error| format!("{address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(_) => Err(format!("{address}: {}", body.trim())),
        None => Err(format!("{address}: not an answer of HTTP")),
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
