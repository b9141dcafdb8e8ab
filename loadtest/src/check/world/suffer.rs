//! What each fault does to the world, and how it is mended.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use super::World;
use crate::{
    Result,
    check::{
        auth::Auth,
        database::Database,
        disk::Disk,
        faults::{Fault, Step},
        nats::Nats,
        pg::Pg,
        proxy::{Mode, Proxy},
    },
};

/// Between the end of a wait for a standby and a failover that undoes the commit.
const VISIBLE: Duration = Duration::from_millis(300);

/// What a proxy adds to each chunk.
const DELAY: Duration = Duration::from_millis(30);

impl World {
    /// Makes a fault, lets it last, and mends it. If messages may be lost for good,
    /// the newest seq of each chat that was left.
    pub async fn suffer(&mut self, step: Step) -> Result<Option<BTreeMap<i64, i64>>> {
        if step.fault == Fault::Roll {
            self.roll(step.lasts).await?;
            return Ok(None);
        }
        self.begin(step).await?;
        sleep(step.lasts).await;
        self.end(step).await?;
        Ok(self.left.take())
    }

    async fn begin(&mut self, step: Step) -> Result<()> {
        let node = &mut self.nodes[step.node];
        match step.fault {
            Fault::Kill => node.chatd.kill(),
            Fault::Term => node.chatd.terminate()?,
            Fault::Stop => node.chatd.signal("-STOP"),
            Fault::Cut => node.front.cut(),
            Fault::Delay => node.front.set(Mode::Delay(DELAY)),
            Fault::HalfOpen => node.front.set(Mode::HalfOpen),
            Fault::Clock => node.set_clock()?,
            Fault::DbCut => node.back.iter().for_each(Proxy::cut),
            Fault::DbDelay => set(&node.back, Mode::Delay(DELAY)),
            Fault::DbHalfOpen => set(&node.back, Mode::HalfOpen),
            Fault::DbAway => node.back.iter().for_each(Proxy::away),
            Fault::NatsCut => node.bus.iter().for_each(Proxy::cut),
            Fault::NatsDelay => set(&node.bus, Mode::Delay(DELAY)),
            Fault::NatsHalfOpen => set(&node.bus, Mode::HalfOpen),
            Fault::NatsAway => node.bus.iter().for_each(Proxy::away),
            Fault::Apart => node.ways().for_each(Proxy::away),
            Fault::ApartHalfOpen => node.ways().for_each(|way| way.set(Mode::HalfOpen)),
            Fault::Auth => self.auth.iter_mut().for_each(Auth::kill),
            Fault::Disk => self.disk.iter().try_for_each(Disk::fill)?,
            Fault::DbFast => self.primary().for_each(Pg::stop_fast),
            Fault::DbImmediate => self.primary().for_each(Pg::stop_immediate),
            Fault::DbStop => self.primary().for_each(Pg::sigstop),
            Fault::DbStandby | Fault::DbCancel | Fault::DbFailover => {
                self.pg.iter().for_each(Database::standby_goes);
            }
            Fault::DbLose => {
                if let Some(pg) = &self.pg {
                    pg.wait_for("").await;
                    pg.standby_goes();
                }
            }
            Fault::NatsKill => self.nats.iter_mut().for_each(Nats::kill),
            Fault::NatsStop => self.nats.iter().for_each(|nats| nats.signal("-STOP")),
            // The clients' own doing, the operator's, and what is done elsewhere.
            Fault::Flood | Fault::Moves | Fault::Roll => {}
        }
        Ok(())
    }

    async fn end(&mut self, step: Step) -> Result<()> {
        let node = &mut self.nodes[step.node];
        match step.fault {
            Fault::Kill | Fault::Term => node.chatd.start_again()?,
            Fault::Stop => node.chatd.signal("-CONT"),
            Fault::Delay | Fault::HalfOpen => node.front.set(Mode::Pass),
            Fault::DbDelay
            | Fault::DbHalfOpen
            | Fault::DbAway
            | Fault::NatsDelay
            | Fault::NatsHalfOpen
            | Fault::NatsAway
            | Fault::Apart
            | Fault::ApartHalfOpen => node.mend(),
            Fault::Auth => self.auth.iter_mut().try_for_each(Auth::start_again)?,
            Fault::Disk => {
                self.disk.iter().try_for_each(Disk::free)?;
                // Without room for its log, PostgreSQL does not go on.
                if let Some(pg) = &self.pg
                    && pg.primary.has_ended()
                {
                    pg.primary.start_again();
                }
            }
            Fault::DbFast | Fault::DbImmediate => self.primary().for_each(Pg::start_again),
            Fault::DbFailover => {
                if let Some(pg) = &self.pg {
                    pg.cancel_waits().await;
                    sleep(VISIBLE).await;
                }
                self.take_over().await;
            }
            Fault::DbLose => self.left = self.take_over().await,
            Fault::DbStop => self.primary().for_each(Pg::sigcont),
            Fault::DbStandby => self.pg.iter().for_each(Database::standby_comes_back),
            Fault::DbCancel => {
                if let Some(pg) = &self.pg {
                    pg.cancel_waits().await;
                    pg.standby_comes_back();
                }
            }
            Fault::NatsKill => self.nats.iter_mut().try_for_each(Nats::start_again)?,
            Fault::NatsStop => self.nats.iter().for_each(|nats| nats.signal("-CONT")),
            Fault::Cut
            | Fault::Flood
            | Fault::Clock
            | Fault::DbCut
            | Fault::NatsCut
            | Fault::Moves
            | Fault::Roll => {}
        }
        Ok(())
    }

    /// Stops the nodes and starts them again, one after the other, each away for its
    /// part of the time.
    async fn roll(&mut self, lasts: Duration) -> Result<()> {
        let away = lasts / self.nodes.len() as u32;
        for node in &mut self.nodes {
            node.chatd.terminate()?;
            sleep(away).await;
            node.chatd.start_again()?;
        }
        Ok(())
    }

    fn primary(&self) -> impl Iterator<Item = &Pg> {
        self.pg.iter().map(|pg| &pg.primary)
    }

    /// What the standby has when it takes over. A server whose data is on the disk
    /// that fills goes on itself.
    async fn take_over(&mut self) -> Option<BTreeMap<i64, i64>> {
        let pg = self.pg.as_mut()?;
        pg.primary.stop_immediate();
        pg.standby_comes_back();
        let left = match self.disk {
            None => pg.take_over().await,
            Some(_) => None,
        };
        if left.is_none() {
            pg.primary.start_again();
            pg.wait_for("standby").await;
            return None;
        }
        let server = ([127, 0, 0, 1], pg.primary.port()).into();
        let backs = self.nodes.iter().flat_map(|node| &node.back);
        backs.for_each(|back| back.lead_to(server));
        left
    }
}

fn set(way: &Option<Proxy>, mode: Mode) {
    way.iter().for_each(|way| way.set(mode));
}
