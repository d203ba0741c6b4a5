//! A priority level's seats and its fair queues: `Level`.
//!
//! Flows are dealt a hand of queues each and wait in the shortest; the queue whose turn is the furthest behind goes next
//! (start-time fair queuing, each request at the same price). Invariant: a seat is held by exactly one live [`Ticket`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

/// Upstream's bound of a hand; a larger one is cut, so that dealing stays cheap.
const MAX_HAND: usize = 16;

/// What a level's object says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    exempt: bool,
    seats: u32,
    /// 0: refuse at once.
    queues: usize,
    hand: usize,
    queue_length: usize,
}

impl Limits {
    pub const fn exempt() -> Self {
        Self {
            exempt: true,
            seats: 0,
            queues: 0,
            hand: 0,
            queue_length: 0,
        }
    }

    pub fn of(spec: &Value, seats: u32) -> Self {
        if spec["type"] == "Exempt" {
            return Self {
                seats,
                ..Self::exempt()
            };
        }
        let response = &spec["limited"]["limitResponse"];
        let number = |name: &str, default: u64| {
            let given = response["queuing"][name].as_u64().filter(|&n| n > 0);
            usize::try_from(given.unwrap_or(default)).unwrap_or(usize::MAX)
        };
        // As many queues as validation lets through at the most, whatever the object says.
        let queues = match response["type"].as_str() {
            Some("Queue") => number("queues", 64).min(10_000_000),
            _ => 0,
        };
        Self {
            exempt: false,
            seats,
            queues,
            hand: number("handSize", 8).min(MAX_HAND).min(queues),
            queue_length: number("queueLengthLimit", 50),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    QueueFull,
    NoSeat,
    TimedOut,
}

pub(super) enum Entry {
    Runs(Ticket),
    Waits(Place),
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, oneshot::Sender<Ticket>)>,
    executing: usize,
    /// When, in turns, its next request starts.
    turn: u64,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    queues: Vec<Queue>,
    in_use: u32,
    waiting: usize,
    /// The turn of the request that started last.
    turn: u64,
    next_id: u64,
    /// Grows with each new set of queues: tickets and places of an old set do not count in the new.
    set: u64,
}

#[derive(Debug)]
pub(super) struct Level {
    exempt: std::sync::atomic::AtomicBool,
    state: Mutex<State>,
}

impl Default for Level {
    fn default() -> Self {
        let state = State {
            limits: Limits::exempt(),
            queues: Vec::new(),
            in_use: 0,
            waiting: 0,
            turn: 0,
            next_id: 0,
            set: 0,
        };
        Self {
            exempt: true.into(),
            state: Mutex::new(state),
        }
    }
}

impl Level {
    pub fn is_exempt(&self) -> bool {
        self.exempt.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn seats(&self) -> u32 {
        self.state.lock().limits.seats
    }

    /// Takes new limits. If the number of queues changes, who waits is let in: that is rare, and nobody is lost.
    pub fn configure(this: &Arc<Self>, limits: Limits) {
        let mut state = this.state.lock();
        let other = state.limits.queues != limits.queues;
        state.limits = limits;
        this.exempt
            .store(limits.exempt, std::sync::atomic::Ordering::Relaxed);
        if other {
            let old = std::mem::take(&mut state.queues);
            state.queues.resize_with(limits.queues, Queue::default);
            state.set += 1;
            state.waiting = 0;
            for (_, sender) in old.into_iter().flat_map(|queue| queue.waiting) {
                Self::hand_over(this, &mut state, usize::MAX, sender);
            }
        }
        Self::dispatch(this, &mut state);
    }

    /// Takes a seat, or a place in a queue.
    pub fn enter(this: &Arc<Self>, flow: u64) -> Result<Entry, Refused> {
        let mut guard = this.state.lock();
        let state = &mut *guard;
        let free = state.in_use < state.limits.seats;
        if state.queues.is_empty() {
            if !free {
                return Err(Refused::NoSeat);
            }
            state.in_use += 1;
            return Ok(Entry::Runs(Self::ticket(this, state, usize::MAX)));
        }
        let at = shortest(state, flow);
        let turn = state.turn;
        let limit = state.limits.queue_length;
        let id = state.next_id;
        let direct = free && state.waiting == 0;
        let Some(queue) = state.queues.get_mut(at) else {
            return Err(Refused::NoSeat);
        };
        if queue.waiting.is_empty() {
            queue.turn = queue.turn.max(turn);
        }
        if direct {
            queue.executing += 1;
            state.turn = queue.turn;
            queue.turn += 1;
            state.in_use += 1;
            return Ok(Entry::Runs(Self::ticket(this, state, at)));
        }
        if queue.waiting.len() >= limit {
            return Err(Refused::QueueFull);
        }
        let (sender, receiver) = oneshot::channel();
        queue.waiting.push_back((id, sender));
        state.next_id += 1;
        state.waiting += 1;
        Ok(Entry::Waits(Place {
            level: Arc::clone(this),
            queue: at,
            set: state.set,
            id,
            receiver,
        }))
    }

    fn ticket(this: &Arc<Self>, state: &State, queue: usize) -> Ticket {
        Ticket {
            level: Some(Arc::clone(this)),
            queue,
            set: state.set,
        }
    }

    /// Gives a seat to one who waits; false: they went away.
    fn hand_over(
        this: &Arc<Self>,
        state: &mut State,
        queue: usize,
        sender: oneshot::Sender<Ticket>,
    ) -> bool {
        if let Err(mut ticket) = sender.send(Self::ticket(this, state, queue)) {
            // It never held a seat.
            ticket.level = None;
            return false;
        }
        state.in_use += 1;
        true
    }

    fn dispatch(this: &Arc<Self>, state: &mut State) {
        while state.waiting > 0 && state.in_use < state.limits.seats {
            let next = state
                .queues
                .iter()
                .enumerate()
                .filter(|(_, queue)| !queue.waiting.is_empty())
                .min_by_key(|(_, queue)| queue.turn)
                .map(|(at, _)| at);
            let Some(at) = next else { return };
            let Some((_, sender)) = state.queues[at].waiting.pop_front() else {
                return;
            };
            state.waiting -= 1;
            if Self::hand_over(this, state, at, sender) {
                let queue = &mut state.queues[at];
                queue.executing += 1;
                state.turn = queue.turn;
                queue.turn += 1;
            }
        }
    }
}

/// The shortest of the queues that a flow is dealt.
fn shortest(state: &State, mut flow: u64) -> usize {
    let queues = state.queues.len();
    let mut taken = [0_usize; MAX_HAND];
    let mut best = (usize::MAX, 0);
    for dealt in 0..state.limits.hand.clamp(1, MAX_HAND) {
        let left = (queues - dealt) as u64;
        let mut card = (flow % left) as usize;
        flow /= left;
        let before = &mut taken[..=dealt];
        let mut at = 0;
        while at < dealt && card >= before[at] {
            card += 1;
            at += 1;
        }
        before.copy_within(at..dealt, at + 1);
        before[at] = card;
        let load = state.queues[card].waiting.len() + state.queues[card].executing;
        best = best.min((load, card));
    }
    best.1
}

/// A seat that is held; it is free again when this goes.
#[derive(Debug)]
pub(super) struct Ticket {
    level: Option<Arc<Level>>,
    queue: usize,
    set: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(level) = self.level.take() else {
            return;
        };
        let mut state = level.state.lock();
        state.in_use -= 1;
        if state.set == self.set
            && let Some(queue) = state.queues.get_mut(self.queue)
        {
            queue.executing -= 1;
        }
        Level::dispatch(&level, &mut state);
    }
}

/// A place in a queue; given up when this goes.
pub(super) struct Place {
    level: Arc<Level>,
    queue: usize,
    set: u64,
    id: u64,
    receiver: oneshot::Receiver<Ticket>,
}

impl Future for Place {
    type Output = Result<Ticket, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver)
            .poll(cx)
            .map(|got| got.map_err(|_| Refused::TimedOut))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.level.state.lock();
        if state.set != self.set {
            return;
        }
        let id = self.id;
        if let Some(queue) = state.queues.get_mut(self.queue) {
            let at = queue.waiting.iter().position(|(waiting, _)| *waiting == id);
            if at.and_then(|at| queue.waiting.remove(at)).is_some() {
                state.waiting -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn level(seats: u32, queues: u32, hand: u32) -> Arc<Level> {
        let level = Arc::new(Level::default());
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let spec = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}});
        Level::configure(&level, Limits::of(&spec, seats));
        level
    }

    #[tokio::test]
    async fn a_flood_does_not_keep_others_waiting() {
        let level = level(1, 2, 1);
        let Ok(Entry::Runs(first)) = Level::enter(&level, 0) else {
            panic!("there is a seat");
        };
        let wait = |flow| match Level::enter(&level, flow) {
            Ok(Entry::Waits(place)) => place,
            _ => panic!("all seats are taken"),
        };
        let mut flood: Vec<Place> = (0..40).map(|_| wait(0)).collect();
        let other = wait(1);
        drop(first);
        // At the latest after one more of the flood it is the other's turn.
        let second =
            tokio::time::timeout(std::time::Duration::from_millis(10), flood.remove(0)).await;
        drop(second);
        drop(other.await.unwrap());
        assert_eq!(level.state.lock().waiting, 39 - 1);
        drop(flood);
        let state = level.state.lock();
        assert_eq!((state.in_use, state.waiting), (0, 0));
    }

    #[test]
    fn hands_have_no_queue_twice() {
        let level = level(1, 8, 8);
        // Eight requests of one flow fill all eight queues of its hand, one each.
        let mut held = Vec::new();
        for _ in 0..9 {
            held.push(Level::enter(&level, 0x5eed_5eed_5eed).ok());
        }
        let state = level.state.lock();
        assert!(
            state
                .queues
                .iter()
                .all(|q| q.waiting.len() + q.executing >= 1)
        );
        drop(state);
        drop(held);
        assert_eq!(level.state.lock().waiting, 0);
    }

    #[tokio::test]
    async fn fewer_queues_lose_nobody() {
        let level = level(1, 4, 1);
        let Ok(Entry::Runs(first)) = Level::enter(&level, 0) else {
            panic!("there is a seat");
        };
        let Ok(Entry::Waits(place)) = Level::enter(&level, 0) else {
            panic!("all seats are taken");
        };
        Level::configure(
            &level,
            Limits::of(
                &json!({"limited": {"limitResponse": {"type": "Reject"}}}),
                1,
            ),
        );
        drop(place.await.unwrap());
        drop(first);
        assert_eq!(level.state.lock().in_use, 0);
    }
}
