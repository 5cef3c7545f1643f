//! A name for a server that may move, and a wire that holds back or loses an answer on demand.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    select,
    sync::{oneshot, watch},
};

/// Stands between a store and its server.
pub struct Proxy {
    pub port: u16,
    to: Arc<AtomicU16>,
    fault: Arc<Mutex<Option<Fault>>>,
    is_down: watch::Sender<bool>,
}

struct Fault {
    answered: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
    then: Then,
}

/// What becomes of an answer that was held back.
#[derive(PartialEq)]
enum Then {
    Cut,
    Deliver,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (to, fault) = (Arc::new(AtomicU16::new(to)), Arc::default());
        let (target, faults) = (Arc::clone(&to), Arc::clone(&fault));
        let (is_down, down) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *down.borrow() {
                    continue;
                }
                let port = target.load(Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                tokio::spawn(carry(client, server, Arc::clone(&faults), down.clone()));
            }
        });
        Self { port, to, fault, is_down }
    }

    /// Ends all connections, and every new one until [`go_up`](Self::go_up).
    pub fn go_down(&self) {
        self.is_down.send_replace(true);
    }

    pub fn go_up(&self) {
        self.is_down.send_replace(false);
    }

    /// Lets the name point elsewhere: new connections go there, old ones stay.
    pub fn move_to(&self, port: u16) {
        self.to.store(port, Ordering::Relaxed);
    }

    /// Holds back the server's next answer while `meanwhile` runs, and then delivers it.
    pub fn hold_next_answer<R>(
        &self,
        meanwhile: impl Future<Output = R>,
    ) -> impl Future<Output = R> {
        self.next_answer(Then::Deliver, meanwhile)
    }

    /// Holds back the server's next answer while `meanwhile` runs, and then ends the connection instead.
    pub fn lose_next_answer<R>(
        &self,
        meanwhile: impl Future<Output = R>,
    ) -> impl Future<Output = R> {
        self.next_answer(Then::Cut, meanwhile)
    }

    fn next_answer<R>(
        &self,
        then: Then,
        meanwhile: impl Future<Output = R>,
    ) -> impl Future<Output = R> {
        let (answered, was_answered) = oneshot::channel();
        let (do_go_on, go_on) = oneshot::channel();
        *self.fault.lock().unwrap() = Some(Fault { answered, go_on, then });
        async move {
            was_answered.await.unwrap();
            let result = meanwhile.await;
            do_go_on.send(()).unwrap();
            result
        }
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    fault: Arc<Mutex<Option<Fault>>>,
    mut down: watch::Receiver<bool>,
) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        () = answers(from_server, to_client, &fault) => {}
        Ok(_) = down.wait_for(|is_down| *is_down) => {}
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: &Mutex<Option<Fault>>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let fault = fault.lock().unwrap().take();
        if let Some(Fault { answered, go_on, then }) = fault {
            let _ = answered.send(());
            let _ = go_on.await;
            if then == Then::Cut {
                return;
            }
        }
        if to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}
