//! What the commit gate may confirm, and when it answers. Pure: messages, clock and deadline come in as data.
//!
//! PostgreSQL lets a commit go once a standby has confirmed a position behind it, and remembers the highest ever
//! confirmed. So the one thing to keep is: no reply names a position above the last reply's unless the lease runs at
//! the moment in which it is sent. Everything else only keeps commits from waiting longer than needed.

pub use crate::guard::protocol::Lsn;

/// Of a message's own bytes: longer than any that the server sends while it streams, with its header.
const WAL_HEADER_BYTES: usize = 25;
const KEEPALIVE_BYTES: usize = 18;
/// A reply as it goes out, its frame included, bytes.
pub const REPLY_BYTES: usize = 39;
/// Between the Unix epoch and PostgreSQL's, microseconds.
const EPOCH_US: i64 = 946_684_800_000_000;

/// What the server sends while it streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromServer {
    /// Log up to here.
    Wal {
        /// Behind its last byte.
        end: Lsn,
    },
    /// Nothing new.
    Keepalive {
        /// It has sent everything up to here.
        end: Lsn,
        /// It wants an answer.
        asks: bool,
    },
}

impl FromServer {
    /// Reads the content of a copy-data message.
    ///
    /// # Errors
    /// It is none of the two; in words.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        let word = |at: usize| -> Option<u64> { Some(u64::from_be_bytes(data.get(at..at + 8)?.try_into().ok()?)) };
        let short = || format!("the server sent a message of {} bytes that is too short for its kind", data.len());
        match data.first() {
            Some(b'w') if data.len() >= WAL_HEADER_BYTES => {
                let start = word(1).ok_or_else(short)?;
                let length = (data.len() - WAL_HEADER_BYTES) as u64;
                let end = start.checked_add(length).ok_or_else(|| format!("log at {start:#x} cannot be"))?;
                Ok(Self::Wal { end: Lsn(end) })
            }
            Some(b'k') if data.len() == KEEPALIVE_BYTES => {
                Ok(Self::Keepalive { end: Lsn(word(1).ok_or_else(short)?), asks: data[KEEPALIVE_BYTES - 1] != 0 })
            }
            Some(b'w' | b'k') => Err(short()),
            Some(other) => Err(format!("the server sent a message of a kind that is not known ({other:#04x})")),
            None => Err("the server sent an empty message".to_owned()),
        }
    }
}

/// Whether the server was seen to count what is confirmed: while its stream catches up it ignores replies, and does not
/// tell when that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    NotKnown,
    /// From the next reply on.
    FromNext,
    Yes,
}

/// A reply: everything up to here was written, synced and replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// What it confirms; 0 is nothing at all.
    pub confirms: Lsn,
    releases: bool,
}

impl Reply {
    /// As it goes out. All three positions are the one: a commit may wait for any of them (`synchronous_commit`).
    pub fn bytes(self, unix_ms: u64) -> [u8; REPLY_BYTES] {
        let mut bytes = [0; REPLY_BYTES];
        bytes[0] = b'd';
        bytes[1..5].copy_from_slice(&(REPLY_BYTES as u32 - 1).to_be_bytes());
        bytes[5] = b'r';
        for at in [6, 14, 22] {
            bytes[at..at + 8].copy_from_slice(&self.confirms.0.to_be_bytes());
        }
        let unix_us = i64::try_from(unix_ms.saturating_mul(1000)).unwrap_or(i64::MAX);
        bytes[30..38].copy_from_slice(&(unix_us.saturating_sub(EPOCH_US)).to_be_bytes());
        bytes
    }
}

/// One stream, from its begin to its end.
#[derive(Debug)]
pub struct Flow {
    received: Lsn,
    confirmed: Lsn,
    asked: bool,
    counted: Counted,
}

impl Flow {
    /// The stream begins `at` the end of what is synced: what lies before waits for a confirmation like what comes.
    pub fn begin(at: Lsn) -> Self {
        Self { received: at, confirmed: Lsn(0), asked: false, counted: Counted::NotKnown }
    }

    /// A message came.
    pub fn take(&mut self, message: FromServer) {
        let (FromServer::Wal { end } | FromServer::Keepalive { end, .. }) = message;
        self.received = self.received.max(end);
        self.asked |= matches!(message, FromServer::Keepalive { asks: true, .. });
    }

    /// The server was seen to stream: what is sent from now on counts.
    pub fn seen_streaming(&mut self) {
        if self.counted == Counted::NotKnown {
            self.counted = Counted::FromNext;
        }
    }

    /// The last reply is to be sent again, every few milliseconds: it may have been ignored.
    pub fn repeats(&self) -> bool {
        self.counted != Counted::Yes
    }

    /// Something waits for a confirmation that may not be given.
    pub fn holds_back(&self, now_ns: u64, until_ns: u64) -> bool {
        now_ns >= until_ns && self.received > self.confirmed
    }

    /// The highest position confirmed on this stream.
    pub fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    /// What is to be sent at once, if anything. `now_ns` and `until_ns` (both `CLOCK_BOOTTIME`) are read for this very
    /// call, and the reply is sent at once or never. `repeat`: it is time to send the last one again.
    pub fn reply(&self, now_ns: u64, until_ns: u64, repeat: bool) -> Option<Reply> {
        let releases = now_ns < until_ns;
        let confirms = if releases { self.received } else { self.confirmed };
        let again = repeat && releases && self.repeats();
        (self.asked || confirms > self.confirmed || again).then_some(Reply { confirms, releases })
    }

    /// The whole of a reply went out.
    pub fn sent(&mut self, reply: Reply) {
        self.asked = false;
        self.confirmed = reply.confirms;
        if reply.releases && self.counted == Counted::FromNext {
            self.counted = Counted::Yes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keepalive(end: u64, asks: bool) -> FromServer {
        FromServer::Keepalive { end: Lsn(end), asks }
    }

    fn wal(end: u64) -> FromServer {
        FromServer::Wal { end: Lsn(end) }
    }

    /// Sends what is to be sent.
    fn step(flow: &mut Flow, now_ns: u64, until_ns: u64, repeat: bool) -> Option<u64> {
        let reply = flow.reply(now_ns, until_ns, repeat)?;
        flow.sent(reply);
        Some(reply.confirms.0)
    }

    #[test]
    fn positions_are_read_and_written_as_postgresql_does() {
        for (text, lsn) in [
            ("0/0", Some(0)),
            ("16/B374D848", Some(0x16_B374_D848)),
            ("FFFFFFFF/FFFFFFFF", Some(u64::MAX)),
            ("100000000/0", None),
            ("0/+1", None),
            ("0", None),
            ("/", None),
            ("g/0", None),
        ] {
            assert_eq!(Lsn::parse(text), lsn.map(Lsn), "{text}");
            assert!(lsn.is_none_or(|lsn| Lsn(lsn).to_string() == text), "{text}");
        }
    }

    #[test]
    fn messages_are_read_or_named() {
        let message = |kind: u8, first: u64, length: usize| {
            let mut data = vec![kind];
            data.extend(first.to_be_bytes());
            data.resize(length, 0);
            data
        };
        assert_eq!(FromServer::parse(&message(b'w', 100, 25 + 40)), Ok(wal(140)));
        assert_eq!(FromServer::parse(&message(b'k', 100, 18)), Ok(keepalive(100, false)));
        let mut asks = message(b'k', 100, 18);
        asks[17] = 1;
        assert_eq!(FromServer::parse(&asks), Ok(keepalive(100, true)));
        for (data, wanted) in [
            (vec![], "empty"),
            (message(b'w', 1, 24), "24 bytes that is too short"),
            (message(b'k', 1, 17), "17 bytes that is too short"),
            (message(b'x', 1, 18), "0x78"),
            (message(b'w', u64::MAX, 26), "cannot be"),
        ] {
            let error = FromServer::parse(&data).expect_err(wanted);
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_reply_is_one_frame_with_one_position_three_times() {
        let bytes = Reply { confirms: Lsn(0x0102_0304_0506_0708), releases: true }.bytes(946_684_800_001);
        assert_eq!(bytes[..6], [b'd', 0, 0, 0, 38, b'r']);
        for at in [6, 14, 22] {
            assert_eq!(bytes[at..at + 8], [1, 2, 3, 4, 5, 6, 7, 8]);
        }
        assert_eq!(bytes[30..], [0, 0, 0, 0, 0, 0, 3, 232, 0]);
    }

    #[test]
    fn what_comes_while_the_lease_runs_is_confirmed_at_once_and_else_when_it_runs_again() {
        let mut flow = Flow::begin(Lsn(100));
        assert_eq!(step(&mut flow, 9, 10, false), Some(100), "what lies before may be waited for");
        assert_eq!(step(&mut flow, 9, 10, false), None);
        flow.take(wal(200));
        assert_eq!(step(&mut flow, 9, 10, false), Some(200));
        flow.take(wal(300));
        assert!(flow.holds_back(10, 10));
        assert_eq!(step(&mut flow, 10, 10, true), None, "the deadline itself is past");
        flow.take(keepalive(300, true));
        assert_eq!(step(&mut flow, 10, 10, false), Some(200), "answered, and nothing new released");
        assert_eq!(step(&mut flow, 10, 10, false), None, "answered once");
        assert_eq!(step(&mut flow, 10, 11, false), Some(300));
        assert!(!flow.holds_back(99, 11));
    }

    #[test]
    fn a_stream_that_begins_while_lapsed_confirms_nothing_at_all() {
        let mut flow = Flow::begin(Lsn(100));
        flow.take(keepalive(100, true));
        assert_eq!(step(&mut flow, 10, 0, true), Some(0));
    }

    #[test]
    fn a_reply_is_repeated_until_one_was_sent_after_the_server_was_seen_to_count_them() {
        let mut flow = Flow::begin(Lsn(100));
        for _ in 0..3 {
            assert_eq!(step(&mut flow, 9, 10, true), Some(100));
        }
        flow.seen_streaming();
        assert_eq!(step(&mut flow, 10, 10, true), None, "lapsed: a repetition would release nothing");
        assert!(flow.repeats());
        assert_eq!(step(&mut flow, 9, 10, true), Some(100));
        assert!(!flow.repeats());
        flow.seen_streaming();
        assert_eq!(step(&mut flow, 9, 10, true), None);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Wal(u64),
        Keepalive(u64, bool),
        Streams,
        /// The clock goes on; a freeze is a long one.
        Passes(u64),
        Extended(u64),
        Shut,
        Sends {
            repeat: bool,
            blocked: bool,
        },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0u64..1000).prop_map(Event::Wal),
            (0u64..1000, any::<bool>()).prop_map(|(end, asks)| Event::Keepalive(end, asks)),
            Just(Event::Streams),
            prop_oneof![0u64..20, Just(3_600_000u64)].prop_map(Event::Passes),
            (0u64..50).prop_map(Event::Extended),
            Just(Event::Shut),
            (any::<bool>(), any::<bool>()).prop_map(|(repeat, blocked)| Event::Sends { repeat, blocked }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_nothing_new_is_confirmed_without_a_lease(events in prop::collection::vec(event(), 0..200)) {
            let mut flow = Flow::begin(Lsn(500));
            let (mut now, mut until, mut received, mut released, mut owes) = (1u64, 0u64, 500u64, 0u64, false);
            for event in events {
                match event {
                    Event::Wal(end) => {
                        flow.take(wal(end));
                        received = received.max(end);
                    }
                    Event::Keepalive(end, asks) => {
                        flow.take(keepalive(end, asks));
                        received = received.max(end);
                        owes |= asks;
                    }
                    Event::Streams => flow.seen_streaming(),
                    Event::Passes(ns) => now += ns,
                    Event::Extended(ns) => until = until.max(now + ns),
                    Event::Shut => until = 0,
                    Event::Sends { repeat, blocked } => {
                        let runs = now < until;
                        let reply = flow.reply(now, until, repeat);
                        prop_assert!(reply.is_some() || !owes, "a question stays unanswered");
                        prop_assert!(reply.is_some() || !runs || released == received, "held back for nothing");
                        if let Some(reply) = reply {
                            prop_assert!(reply.confirms.0 >= released && reply.confirms.0 <= received);
                            prop_assert!(runs || reply.confirms.0 == released, "released without a lease");
                            if !blocked {
                                flow.sent(reply);
                                released = reply.confirms.0;
                                owes = false;
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..64)) {
            let _either = FromServer::parse(&data);
        }
    }
}
