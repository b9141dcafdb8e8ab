use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long a server may take over each step: longer than its own deadlines.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than any answer has: the longest tells of all nodes of a cluster.
const MAX_ANSWER: u64 = 1 << 20;

/// Asks a server that runs, from outside, as `chatd health` does.
///
/// # Errors
/// If it can't be reached, or what its answer says if that is not 200.
pub fn ask(address: SocketAddr, path: &str) -> Result<(), String> {
    say(address, "GET", path, "").map(|_| ())
}

/// The same with any method; what the answer says if it is 200.
pub(super) fn say(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String, String> {
    let answer =
        send(address, method, path, body).map_err(|error| format!("{address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some(_) => Err(format!("{address}: {}", body.trim())),
        None => Err(format!("{address}: not an answer of HTTP")),
    }
}

fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
