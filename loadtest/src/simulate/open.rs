use super::sim::{Sim, now};

/// A call under way at the server. Dropped without an answer it has been cut.
pub struct Open {
    sim: Sim,
    id: u64,
    answered: bool,
}

impl Open {
    pub fn new(sim: &Sim, id: u64) -> Self {
        Self {
            sim: sim.clone(),
            id,
            answered: false,
        }
    }

    pub fn answered(mut self) {
        self.answered = true;
        let state = &mut *self.sim.state();
        let kept = state.model.closed(self.id, now());
        state.check(kept);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.answered {
            let state = &mut *self.sim.state();
            let kept = state.model.cut(self.id, now());
            state.check(kept);
        }
    }
}
