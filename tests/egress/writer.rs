//! A client that writes rows one after the other and counts what was acknowledged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use watchdog::guard::host::boottime_ns;

#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    last_ns: AtomicU64,
    over: AtomicBool,
    broken: AtomicBool,
}

/// One connection.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Connects from an address to an address; `None` where that does not succeed within the time.
async fn connect(from: IpAddr, to: SocketAddr, limit: Duration) -> Option<tokio_postgres::Client> {
    let socket = if to.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }.unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let mut config = tokio_postgres::Config::new();
    config.user("postgres").dbname("postgres");
    let work = async {
        let stream = socket.connect(to).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let (client, connection) = config.connect_raw(stream, tokio_postgres::NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    };
    tokio::time::timeout(limit, work).await.ok().flatten()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Does a new connection get as far as an answer?
pub fn gets_in(from: &str, to: &str, port: u16) -> bool {
    let (from, to) = (from.parse().unwrap(), SocketAddr::new(to.parse().unwrap(), port));
    runtime().block_on(connect(from, to, Duration::from_millis(250))).is_some()
}

/// A client that asked for something long and only waits: nothing of its own is on the way. `true` once its connection is over.
pub fn waits(from: &str, to: &str, port: u16) -> Arc<AtomicBool> {
    let (from, to) = (from.parse().unwrap(), SocketAddr::new(to.parse().unwrap(), port));
    let ended = Arc::new(AtomicBool::new(false));
    let (its, (say, asked)) = (Arc::clone(&ended), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        runtime().block_on(async {
            let client = connect(from, to, Duration::from_secs(5)).await.unwrap();
            client.simple_query("SELECT 1").await.unwrap();
            say.send(()).unwrap();
            let _it_fails = client.simple_query("SELECT pg_sleep(60)").await;
            its.store(true, Ordering::SeqCst);
        });
    });
    asked.recv().unwrap();
    // Until the question has arrived and TCP has said so.
    watchdog::guard::host::pause(300);
    assert!(!ended.load(Ordering::SeqCst));
    ended
}

impl Writer {
    /// Begins to write, over a connection that must succeed.
    pub fn begin(from: &str, to: &str, port: u16) -> Self {
        let (from, to) = (from.parse().unwrap(), SocketAddr::new(to.parse().unwrap(), port));
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let Some(client) = connect(from, to, Duration::from_secs(5)).await else {
                    return its.broken.store(true, Ordering::SeqCst);
                };
                for n in 0i64.. {
                    let row = async { client.execute("INSERT INTO written (n) VALUES ($1)", &[&n]).await };
                    let over = async {
                        while !its.over.load(Ordering::SeqCst) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    let done = tokio::select! { biased; done = row => done, () = over => return };
                    if done.is_err() {
                        return its.broken.store(true, Ordering::SeqCst);
                    }
                    its.last_ns.store(boottime_ns(), Ordering::SeqCst);
                    its.acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
        Self { shared, thread: Some(thread) }
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// When the client saw the last acknowledgement, boot time, nanoseconds.
    pub fn last_ns(&self) -> u64 {
        self.shared.last_ns.load(Ordering::SeqCst)
    }

    /// Did the connection end by itself?
    pub fn broken(&self) -> bool {
        self.shared.broken.load(Ordering::SeqCst)
    }

    /// Waits until further rows are acknowledged.
    pub fn goes_on(&self) {
        let before = self.acknowledged();
        crate::host::wait_until("further acknowledgements", || {
            assert!(!self.broken(), "the connection broke");
            (self.acknowledged() > before + 1).then_some(())
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
