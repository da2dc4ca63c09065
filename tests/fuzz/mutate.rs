//! Genuine inputs, changed: flipped, cut, repeated, spliced, their numbers and strings exchanged for what no sender means.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Bytes; a failing run prints them once, shortened.
#[derive(Clone)]
pub struct Input(pub Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// An input is never longer than this: what is longer is refused unread, which tests of single parts show.
const INPUT_MAX: usize = 300 << 10;

#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Truncate(Index),
    Cut(Index, usize),
    Repeat(Index, usize, usize),
    /// A piece of another input, over what is here.
    Splice(Index, Index, Index, usize),
    Insert(Index, Index),
    /// The nth run of digits.
    Number(Index, Index),
    /// What stands between the nth pair of quotes.
    Text(Index, Index),
    /// The nth piece between separators goes, or changes its place with the next.
    Drop(Index),
    Swap(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Truncate),
        1 => (at(), 1..40usize).prop_map(|(at, length)| Change::Cut(at, length)),
        1 => (at(), 1..200usize, 1..60usize).prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        1 => (at(), at(), at(), 1..400usize).prop_map(|(other, from, to, length)| Change::Splice(other, from, to, length)),
        2 => (at(), at()).prop_map(|(at, what)| Change::Insert(at, what)),
        4 => (at(), at()).prop_map(|(nth, what)| Change::Number(nth, what)),
        3 => (at(), at()).prop_map(|(nth, what)| Change::Text(nth, what)),
        2 => at().prop_map(Change::Drop),
        1 => at().prop_map(Change::Swap),
    ]
}

/// Mutated genuine inputs mostly, and now and then wholly random bytes.
pub fn any_input(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let mutated = (any::<Index>(), vec(change(), 1..5)).prop_map(move |(which, changes)| {
        let mut bytes = which.get(&corpus).clone();
        for change in &changes {
            apply(change, &mut bytes, &corpus);
        }
        bytes.truncate(INPUT_MAX);
        Input(bytes)
    });
    let random = vec(any::<u8>(), 0..600).prop_map(Input);
    prop_oneof![12 => mutated, 1 => random]
}

fn numbers() -> Vec<Vec<u8>> {
    let plain = ["0", "1", "-1", "255", "256", "65535", "65536", "2147483648", "4294967296", "9223372036854775807"];
    let odd = ["9223372036854775808", "18446744073709551615", "18446744073709551616", "1e400", "0.5", "-0", "007"];
    let mut all: Vec<Vec<u8>> = plain.iter().chain(&odd).map(|text| text.as_bytes().to_vec()).collect();
    all.push(b"9".repeat(5000));
    all
}

fn texts() -> Vec<Vec<u8>> {
    let short: [&[u8]; 21] = [
        b"",
        b" ",
        b"\n",
        b"\0",
        b"\x1b[2J",
        b"\r\n",
        b"..",
        b"../../x",
        b"/",
        b"%00",
        b"\xff\xfe",
        b"\xc3",
        b"\"",
        b"\\",
        b"\\u001b",
        b"\\ud800",
        "\u{202e}ă".as_bytes(),
        b"null",
        b"true",
        b"{}",
        b"NaN",
    ];
    let mut all: Vec<Vec<u8>> = short.iter().map(|text| text.to_vec()).collect();
    for (piece, times) in [
        ("x", 300),
        ("x", 70_000),
        ("x", 5_000),
        ("\u{7f}", 50_000),
        ("ă", 700),
        ("[", 3000),
        ("{\"a\":", 3000),
        ("<a>", 3000),
        (".a", 2000),
    ] {
        all.push(piece.as_bytes().repeat(times));
    }
    all
}

fn apply(change: &Change, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    if let Change::Insert(at, what) = change {
        let at = at.index(bytes.len() + 1);
        let spice = [texts(), numbers()].concat();
        bytes.splice(at..at, what.get(&spice).iter().copied());
    }
    if bytes.is_empty() {
        return;
    }
    let piece = |at: usize, length: usize, of: &[u8]| at..(at + length).min(of.len());
    match change {
        Change::Insert(..) => {}
        Change::Flip(at, bit) => *at.get_mut(bytes.as_mut_slice()) ^= 1 << bit,
        Change::Set(at, byte) => *at.get_mut(bytes.as_mut_slice()) = *byte,
        Change::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        Change::Cut(at, length) => drop(bytes.drain(piece(at.index(bytes.len()), *length, bytes))),
        Change::Repeat(at, length, times) => {
            let piece = piece(at.index(bytes.len()), *length, bytes);
            let repeated = bytes[piece.clone()].repeat(*times);
            bytes.splice(piece.end..piece.end, repeated);
        }
        Change::Splice(other, from, to, length) => {
            let other = other.get(corpus);
            if !other.is_empty() {
                let taken = other[piece(from.index(other.len()), *length, other)].to_vec();
                let over = piece(to.index(bytes.len()), taken.len(), bytes);
                bytes.splice(over, taken);
            }
        }
        Change::Number(nth, what) => {
            replace(bytes, &runs(bytes, u8::is_ascii_digit), nth, what.get::<Vec<u8>>(&numbers()))
        }
        Change::Text(nth, what) => {
            // Where an exchange of texts would tell more, it is one of another input.
            let mut spice = texts();
            spice.extend(corpus.iter().flat_map(|other| quoted(other).into_iter().map(|at| other[at].to_vec())));
            replace(bytes, &quoted(bytes), nth, what.get::<Vec<u8>>(&spice));
        }
        Change::Drop(nth) => replace(bytes, &runs(bytes, |byte| !b",;\n \"".contains(byte)), nth, b""),
        Change::Swap(nth) => {
            let lines = runs(bytes, |byte| !b",\n".contains(byte));
            let Some(n) = lines.len().checked_sub(1).filter(|n| *n > 0).map(|n| nth.index(n)) else { return };
            let (first, second) = (bytes[lines[n].clone()].to_vec(), bytes[lines[n + 1].clone()].to_vec());
            bytes.splice(lines[n + 1].clone(), first);
            bytes.splice(lines[n].clone(), second);
        }
    }
}

fn replace(bytes: &mut Vec<u8>, places: &[std::ops::Range<usize>], nth: &Index, with: &[u8]) {
    if !places.is_empty() {
        bytes.splice(nth.get(places).clone(), with.iter().copied());
    }
}

/// Longest runs of bytes that are so.
fn runs(bytes: &[u8], is_so: impl Fn(&u8) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for at in (0..bytes.len()).filter(|at| is_so(&bytes[*at])) {
        match found.last_mut().filter(|run| run.end == at) {
            Some(run) => run.end = at + 1,
            None => found.push(at..at + 1),
        }
    }
    found
}

/// What stands between quotes.
fn quoted(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let marks: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'"').collect();
    marks.chunks_exact(2).map(|pair| pair[0] + 1..pair[1]).collect()
}
