//! `chatd connect` for pipes: a message a line on standard output, and each line
//! of standard input posted.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader, Split, Stdin};

use super::{
    ClientError,
    outbox::Line,
    peer::{Peer, backoff},
    print,
    session::{Front, Session, newest_seq, pause_after},
};
use crate::{config::ConnectConfig, proto};

struct Lines(Split<BufReader<Stdin>>);

pub(super) async fn run(config: ConnectConfig, chat: i64) -> Result<(), ClientError> {
    let mut lines = Lines(BufReader::new(tokio::io::stdin()).split(b'\n'));
    let mut peer = Peer::new(&config.peer).await?;
    let mut pauses = backoff();
    let last = match config.after_seq {
        Some(seq) => seq,
        // "From now on" has to be a seq: a stream that is lost before its first
        // message could not be resumed otherwise.
        None => loop {
            match newest_seq(&mut peer, chat).await {
                Ok(seq) => break seq,
                Err(status) => pause_after(&status, &mut pauses, &mut lines).await?,
            }
        },
    };
    Session::new(peer, chat, last, config.exit_on_eof)
        .run(&mut lines)
        .await
}

impl Front for Lines {
    async fn live(&mut self) -> Result<(), ClientError> {
        Ok(())
    }

    async fn lost(&mut self, why: String, pause: Duration) -> Result<(), ClientError> {
        let seconds = pause.as_secs_f64();
        print::note(&format!("{why}; trying again in {seconds:.1} s"));
        Ok(())
    }

    async fn message(&mut self, message: proto::Message) -> Result<(), ClientError> {
        print::line(&print::message(&message))
    }

    async fn stored(&mut self, _id: &str) -> Result<(), ClientError> {
        Ok(())
    }

    async fn refused(&mut self, line: Line, why: String) -> Result<(), ClientError> {
        let start: String = line.text.chars().take(40).collect();
        print::note(&format!("not posted ({why}): {}", print::escape(&start)));
        Ok(())
    }

    async fn line(&mut self) -> Result<Option<Line>, ClientError> {
        loop {
            let Some(line) = self.0.next_segment().await? else {
                return Ok(None);
            };
            let text = String::from_utf8_lossy(&line);
            let text = text.strip_suffix('\r').unwrap_or(&text);
            if !text.is_empty() {
                return Ok(Some(Line::new(text.to_owned())));
            }
        }
    }
}
