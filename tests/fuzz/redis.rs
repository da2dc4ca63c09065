//! What a Redis server says: of itself, and answer by answer to somebody who begins a conversation.

use std::cell::RefCell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::timeout;
use watchdog::domain::plan::RedisEndpoint;
use watchdog::redis::{Connection, Role, Shown, Trouble, read_info};

use crate::corpus;
use crate::postgres::{TURN, server};
use crate::runner::{Target, Trial, holds, printable, runtime};

/// Characters of one thing that is told: what is kept of a server's words, and ours around it.
const TOLD_MAX: usize = 300;

fn told(text: &str) -> Result<(), String> {
    printable(text)?;
    holds(text.chars().count() <= TOLD_MAX && !text.contains('\n'), || format!("{} characters", text.chars().count()))
}

/// Nothing of it is invented, and all of it may be shown.
fn sound(shown: &Shown, said: &str) -> Result<(), String> {
    let has = |key: &str, value: &str| {
        let of_key = said.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        holds(of_key.into_iter().any(|text| text.trim().parse::<u64>().ok() == value.parse().ok()), || {
            format!("{key} is no {value} in {said:?}")
        })
    };
    has("master_repl_offset", &shown.offset.to_string())?;
    has("process_id", &shown.pid.to_string())?;
    told(&shown.history)?;
    told(&shown.config_file)?;
    match &shown.role {
        Role::Primary => holds(said.contains("role:master"), || format!("a primary by {said:?}")),
        Role::Replica { of, linked, read_only, .. } => {
            told(of)?;
            holds(!linked || said.contains("master_link_status:"), || format!("linked by {said:?}"))?;
            holds(!read_only || said.contains("_read_only:1"), || format!("read-only by {said:?}"))
        }
    }
}

pub fn any_info_of_redis_is_what_it_says_or_names_what_is_missing() -> Trial {
    Target::new("redis-info", corpus::of("redis-info")).cases(1000).judged_by(move |bytes| {
        let said = String::from_utf8_lossy(bytes);
        match read_info(&said) {
            Ok(shown) => sound(&shown, &said),
            Err(why) => {
                holds(why.starts_with("INFO"), || why.clone())?;
                told(&why)
            }
        }
    })
}

/// Let in, then `PING` and `INFO`; refused at each of them; an answer that is longer than it says, and shorter.
fn sessions() -> Vec<Vec<u8>> {
    let text = |body: &[u8]| [format!("${}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat();
    let (ok, pong) = (b"+OK\r\n".to_vec(), b"+PONG\r\n".to_vec());
    let refused = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n".to_vec();
    let mut sessions: Vec<Vec<u8>> =
        corpus::of("redis-info").iter().map(|info| [ok.clone(), pong.clone(), text(info)].join(TURN)).collect();
    sessions.push(refused);
    sessions.push(
        [ok.clone(), b":7\r\n".to_vec(), b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()].join(TURN),
    );
    sessions.push([ok.clone(), b"$262144\r\nshort\r\n".to_vec()].join(TURN));
    sessions.push([ok, b"$2\r\nlonger\r\n".to_vec(), b"*1\r\n$4\r\nPONG\r\n".to_vec()].join(TURN));
    sessions
}

pub fn any_answer_of_redis_is_read_within_its_bound_or_told() -> Trial {
    let (runtime, local) = (runtime(), LocalSet::new());
    let session = Rc::new(RefCell::new(Vec::new()));
    let port = local.block_on(&runtime, server(session.clone()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "S3CRETWORD\n").unwrap();
    let endpoint = RedisEndpoint {
        address: format!("127.0.0.1:{port}"),
        user: Some("watchdog".to_owned()),
        password_file: Some(file.display().to_string()),
    };
    // A quarter of a mebibyte is the most that is read of one answer, and is held as bytes and as text.
    let target = Target { memory_max: 2 << 20, ..Target::new("redis-answers", sessions()).cases(200) };
    let trial = target.judged_by(move |bytes| {
        session.replace(bytes.to_vec());
        let talk = async {
            let mut connection = Connection::open(&endpoint).await?;
            let pong = connection.ask(&["PING"]).await?;
            Ok::<_, Trouble>((pong, connection.look().await?))
        };
        let talked = local.block_on(&runtime, async { timeout(Duration::from_millis(60), talk).await });
        // Whoever asks drops it at its time; nothing may keep it from being dropped.
        let Ok(talked) = talked else { return Ok(()) };
        match talked {
            Ok((pong, shown)) => {
                holds(pong.len() <= watchdog::redis::REPLY_BYTES_MAX * 3, || format!("{} bytes", pong.len()))?;
                sound(&shown, &String::from_utf8_lossy(bytes))
            }
            Err(trouble) => {
                let told_as = trouble.to_string();
                told(&told_as)?;
                let is_echo = String::from_utf8_lossy(bytes).contains("S3CRETWORD");
                holds(is_echo || !told_as.contains("S3CRETWORD"), || told_as.clone())
            }
        }
    });
    trial.keeping(folder)
}
