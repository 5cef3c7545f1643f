//! The examples `counter` and `cart` as servers, under many clients at once, in rounds that alternate with the same
//! application without sessions. It fails on a 5xx, on an answer that is not the client's own, and if the memory or
//! the open files of a server grow.
//!
//! ```text
//! cargo bench --manifest-path benches/speed/Cargo.toml --bench load -- 180 64
//! ```
//!
//! The arguments are the seconds under load of each example, and the clients.

mod bare;
mod client;
mod server;

use std::{
    env,
    time::{Duration, Instant},
};

use client::{Client, Tally};
use server::{Sample, Server};

/// How long the server with sessions answers before it is the turn of the other, which has half as long.
const ROUND: Duration = Duration::from_secs(10);

/// What a server may grow by, after the first half of the load: a tenth, and two megabytes.
const GROWTH: f64 = 1.1;
const GROWTH_KB: u64 = 2048;

/// Open files that are not connections of clients: listener, runtime, standard streams.
const OTHER_FILES: u64 = 32;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Site {
    Counter,
    Cart,
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|text| text != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "bare") {
        return bare::serve().await;
    }
    let mut numbers = arguments.iter().map(|text| text.parse().expect("a number"));
    let seconds = Duration::from_secs(numbers.next().unwrap_or(180));
    let clients = usize::try_from(numbers.next().unwrap_or(64)).unwrap();
    let mut problems = Vec::new();
    for (site, example) in [(Site::Counter, "counter"), (Site::Cart, "cart")] {
        println!("\n{example}, {clients} clients");
        let mut bare = Server::bare();
        let mut server = Server::example(example);
        let result = alternate(site, [&mut bare, &mut server], seconds, clients).await;
        problems
            .extend(result.report(clients).into_iter().map(|text| format!("{example}: {text}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What came of the rounds on one example.
struct Outcome {
    /// Requests a second without and with sessions, in each round.
    rates: Vec<[f64; 2]>,
    latencies: [Vec<u32>; 2],
    tally: Tally,
    samples: Vec<Sample>,
}

async fn alternate(
    site: Site,
    servers: [&mut Server; 2],
    seconds: Duration,
    clients: usize,
) -> Outcome {
    let [bare, server] = servers;
    let mut outcome = Outcome {
        rates: Vec::new(),
        latencies: Default::default(),
        tally: Tally::default(),
        samples: Vec::new(),
    };
    let rounds = seconds.as_secs().div_ceil(ROUND.as_secs()).max(1);
    let round = seconds / u32::try_from(rounds).unwrap();
    // Clients go on with their sessions from round to round.
    let mut visitors: Vec<_> =
        (0..clients).map(|number| Client::new(site, server.port, number, true)).collect();
    let mut others: Vec<_> =
        (0..clients).map(|number| Client::new(site, bare.port, number, false)).collect();
    for _ in 0..rounds {
        let (without, _) = load(&mut others, round / 2, None).await;
        let (with, samples) = load(&mut visitors, round, Some(server)).await;
        outcome.rates.push([rate(&without, round / 2), rate(&with, round)]);
        outcome.samples.extend(samples);
        outcome.latencies[0].extend(without.latencies);
        outcome.latencies[1].extend(&with.latencies);
        outcome.tally.add(with);
    }
    outcome
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(tally: &Tally, round: Duration) -> f64 {
    tally.latencies.len() as f64 / round.as_secs_f64()
}

/// Lets all clients ask as fast as they get answers, and looks at the server twice a second.
async fn load(
    clients: &mut Vec<Client>,
    round: Duration,
    server: Option<&Server>,
) -> (Tally, Vec<Sample>) {
    let end = Instant::now() + round;
    let running = clients.drain(..).map(|mut client| {
        tokio::spawn(async move {
            let tally = client.run_until(end).await;
            (client, tally)
        })
    });
    let running: Vec<_> = running.collect();
    let (mut total, mut samples) = (Tally::default(), Vec::new());
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500)).await;
        samples.extend(server.map(Server::sample));
    }
    for task in running {
        let (client, tally) = task.await.expect("a client");
        clients.push(client);
        total.add(tally);
    }
    (total, samples)
}

impl Outcome {
    /// Prints the figures, and returns what must not be.
    fn report(mut self, clients: usize) -> Vec<String> {
        let mut ratios: Vec<_> = self.rates.iter().map(|[without, with]| with / without).collect();
        ratios.sort_by(f64::total_cmp);
        let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
        let requests = self.latencies[1].len();
        println!("  requests with sessions {requests}, in {} rounds", ratios.len());
        let median = ratios[ratios.len() / 2];
        println!("  requests a second / without sessions: {median:.2} ({low:.2} to {high:.2})");
        for (name, latencies) in ["without", "with"].iter().zip(&mut self.latencies) {
            latencies.sort_unstable();
            let [half, p90, p99, p999] =
                [500, 900, 990, 999].map(|part| latencies[(latencies.len() - 1) * part / 1000]);
            let last = latencies[latencies.len() - 1];
            println!(
                "  us {name} sessions: 50% {half}, 90% {p90}, 99% {p99}, 99.9% {p999}, all {last}"
            );
        }
        let Tally { server_errors, other_errors, foreign, broken, .. } = self.tally;
        println!("  5xx {server_errors}, 4xx {other_errors}, wrong {foreign}, broken {broken}");
        let mut problems = Vec::new();
        if server_errors + other_errors + foreign + broken > 0 {
            problems.push("answers that must not be".to_owned());
        }
        problems.extend(growth(&self.samples, "KB of memory", |sample| sample.kilobytes));
        problems.extend(growth(&self.samples, "open files", |sample| sample.files));
        let files = self.samples.iter().map(|sample| sample.files).max().unwrap_or(0);
        if files > clients as u64 + OTHER_FILES {
            problems.push(format!("{files} open files for {clients} clients"));
        }
        problems
    }
}

/// Compares the last quarter of the samples with the second one: the first is a warm-up.
fn growth(samples: &[Sample], what: &str, value: fn(&Sample) -> u64) -> Option<String> {
    let quarter = |number: usize| {
        let length = samples.len() / 4;
        let mut values: Vec<_> =
            samples[number * length..(number + 1) * length].iter().map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let quarters = [0, 1, 2, 3].map(quarter);
    println!("  {what}, in quarters of the time: {quarters:?}");
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    let has_grown = quarters[3] as f64 > quarters[1] as f64 * GROWTH
        && quarters[3] > quarters[1] + if what.starts_with("KB") { GROWTH_KB } else { 2 };
    has_grown.then(|| format!("the {what} grew: {quarters:?}"))
}
