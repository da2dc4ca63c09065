//! Mail, as `cluster-config/monitoring/alertmanager.yml` has it: what the outbox tells goes by Debian's Alertmanager, with the sample's own
//! routes, receivers and subject, to a stand-in for a mail server.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use watchdog::domain::page::PageAction;

use super::alertmanager::{Am, StandInLog, critical, leader};
use super::{secret_file, tls, wait_until};

/// `watchdog@example.vn` with the password `s3cret`, as AUTH PLAIN says them.
const PLAIN: &str = "AHdhdGNoZG9nQGV4YW1wbGUudm4AczNjcmV0";

#[derive(Debug, Clone, Default)]
struct Mail {
    auth: String,
    from: String,
    to: Vec<String>,
    /// Headers and body, its lines joined again where quoted-printable broke them.
    text: String,
}

impl Mail {
    fn subject(&self) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default()
    }
}

/// Takes every mail, and speaks no more SMTP than that needs. Stops with the test's runtime.
struct StandInMailServer {
    port: u16,
    taken: Arc<Mutex<Vec<Mail>>>,
}

impl StandInMailServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), taken: Arc::default() };
        let taken = server.taken.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = taken.clone();
                tokio::spawn(async move {
                    let mail = take(stream).await;
                    taken.lock().unwrap().extend(mail);
                });
            }
        });
        server
    }

    fn taken(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().clone()
    }
}

/// One session: the mail that was handed over whole, if any.
async fn take(stream: TcpStream) -> Option<Mail> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let (mut mail, mut whole) = (Mail::default(), None);
    write.write_all(b"220 stand-in\r\n").await.ok()?;
    while let Ok(Some(line)) = lines.next_line().await {
        let (verb, rest) = line.split_once([' ', ':']).unwrap_or((&line, ""));
        let answer = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => "250-stand-in\r\n250 AUTH PLAIN\r\n",
            "AUTH" => {
                mail.auth = rest.to_owned();
                "235 welcome\r\n"
            }
            "MAIL" => {
                mail.from = rest.to_owned();
                "250 yes\r\n"
            }
            "RCPT" => {
                mail.to.push(rest.to_owned());
                "250 yes\r\n"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await.ok()?;
                while let Some(line) = lines.next_line().await.ok()?.filter(|line| line != ".") {
                    mail.text.push_str(&line);
                    mail.text.push('\n');
                }
                mail.text = mail.text.replace("=\n", "").replace("=3D", "=");
                whole = Some(mail.clone());
                "250 taken\r\n"
            }
            "QUIT" => {
                let _ = write.write_all(b"221 bye\r\n").await;
                break;
            }
            _ => "502 not here\r\n",
        };
        write.write_all(answer.as_bytes()).await.ok()?;
    }
    whole
}

/// The sample's text; what belongs to a place, and how long it waits, is the test's.
fn sample_for(port: u16, password: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/monitoring/alertmanager.yml");
    let mut text = std::fs::read_to_string(path).unwrap();
    for (old, new) in [
        ("smtp_smarthost: mail.example.vn:587", format!("smtp_smarthost: 127.0.0.1:{port}\n  smtp_require_tls: false")),
        ("/etc/alertmanager/smtp.password", password.display().to_string()),
        ("group_wait: 10s", "group_wait: 0s\n  group_interval: 1s".to_owned()),
    ] {
        assert!(text.contains(old), "the sample has no {old:?}");
        text = text.replacen(old, &new, 1);
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_and_its_end_come_as_mail_by_the_samples_alertmanager() {
    tls();
    let folder = TempDir::new().unwrap();
    let server = StandInMailServer::start().await;
    let password = secret_file(&folder, "s3cret");
    let am = Am::run(folder.path(), &sample_for(server.port, &password)).await;
    let log = Arc::new(StandInLog::new());
    let (task, _leading) = leader(&am, &log);
    for (action, begins) in [(PageAction::Trigger, "[CRITICAL] "), (PageAction::Resolve, "[OVER] ")] {
        log.tell(critical("demo/aicamera/blocked", action));
        let subject = format!("{begins}DR_FAILOVER_BLOCKED aicamera");
        wait_until(&format!("the mail {subject:?}"), || server.taken().iter().any(|mail| mail.subject() == subject))
            .await;
        let mail = server.taken().into_iter().find(|mail| mail.subject() == subject).unwrap();
        for word in ["alertname = DR_FAILOVER_BLOCKED", "group = aicamera", "summary = aicamera serves from hanoi"] {
            assert!(mail.text.contains(word), "no {word:?} in {}", mail.text);
        }
        // Both who are named for what is critical, and nobody of the other routes.
        assert_eq!(
            (mail.from.as_str(), mail.auth.as_str()),
            ("FROM:<watchdog@example.vn>", format!("PLAIN {PLAIN}").as_str())
        );
        assert_eq!(mail.to, ["TO:<dr@example.vn>", "TO:<sysadmin@example.vn>"]);
    }
    assert_eq!(server.taken().len(), 2, "{:?}", server.taken());
    task.abort();
}
