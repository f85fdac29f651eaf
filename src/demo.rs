//! Made-up traffic of a small shop, to try Footfall with: sessions of users who log in, look, buy and leave.
//!
//! Events occur at random times at a chosen mean rate and are submitted like posts, so that ids, metrics and
//! acknowledgements are real. Each event has the member `"demo":true`. While events would be rejected the demo waits.
//! Called by the command line.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::event::BodyFormat;
use crate::event::json::string;
use crate::ingest::{Ack, Events, Handling, Ingest, Shape, Submission, SubmitError, Verdict, Verdicts};

/// Most batches in flight to Kafka; the demo waits while there are this many.
const MOST_IN_FLIGHT: usize = 64;
/// Most events in one batch.
const BATCH: usize = 500;
/// Events that were not sent in time are sent later, unless they are older than this.
const BEHIND: Duration = Duration::from_secs(1);
/// Time between two checks whether events would be accepted again, and how long they must be rejected before that is
/// logged.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const SAID_AFTER: Duration = Duration::from_secs(2);
/// How long the last events may take to be acknowledged when the demo is stopped.
const LAST: Duration = Duration::from_secs(1);

/// Parameters of the traffic.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Mean events per second.
    pub rate: f64,
    /// Users of the shop, at least 1.
    pub users: u32,
}

impl Traffic {
    /// Sends events until `stop` resolves.
    pub async fn run(self, ingest: &Ingest, stop: impl Future<Output = ()>) {
        let mut shop = Shop::new(self);
        let (mut logged, mut in_flight, mut next) = (Logged::default(), FuturesUnordered::new(), Instant::now());
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(verdicts) = in_flight.next(), if !in_flight.is_empty() => logged.verdicts(verdicts),
                () = sleep_until(next), if in_flight.len() < MOST_IN_FLIGHT => {
                    let now = Instant::now();
                    if logged.waits(ingest.unavailable()) {
                        next = now + LOOK_EVERY;
                        continue;
                    }
                    next = next.max(now.checked_sub(BEHIND).unwrap_or(now));
                    let (mut events, most) = (0, BATCH.min(ingest.settings().max_batch));
                    let mut body = Vec::new();
                    while next <= now && events < most {
                        body.push(if events == 0 { b'[' } else { b',' });
                        body.extend_from_slice(&shop.happens());
                        events += 1;
                        next += shop.pause();
                    }
                    body.push(b']');
                    in_flight.push(ingest.submit(submission(body)));
                }
            }
        }
        let _ = timeout(LAST, async { while in_flight.next().await.is_some() {} }).await;
    }
}

/// An array of generated events.
fn submission(body: Vec<u8>) -> Submission<'static> {
    let events = Events::Body { bytes: body.into(), format: BodyFormat::Json, shape: Shape::Array };
    let (ack, handling) = (Ack::All, Handling::Lenient);
    Submission { events, ack, handling, idempotency_key: None, client: None, trace: [None, None] }
}

/// What was logged: each state is logged once, however long it lasts.
#[derive(Default)]
struct Logged {
    waiting_since: Option<Instant>,
    waits: bool,
    failure: Option<String>,
}

impl Logged {
    /// Returns whether events have to wait, for the given reason, and logs changes.
    fn waits(&mut self, reason: Option<String>) -> bool {
        let Some(reason) = reason else {
            self.waiting_since = None;
            if std::mem::take(&mut self.waits) {
                tracing::info!("the demo continues");
            }
            return false;
        };
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        if !self.waits && since.elapsed() >= SAID_AFTER {
            self.waits = true;
            tracing::warn!(reason, "the demo waits");
        }
        true
    }

    fn verdicts(&mut self, verdicts: Result<Verdicts, SubmitError>) {
        match verdicts {
            Ok(Verdicts::One(verdict)) => self.verdict(verdict),
            Ok(Verdicts::Many(verdicts)) => verdicts.into_iter().for_each(|verdict| self.verdict(verdict)),
            Ok(Verdicts::Lines(lines)) => lines.into_iter().for_each(|(_, verdict)| self.verdict(verdict)),
            Err(error) => self.failed(error.to_string()),
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Written { .. } | Verdict::Queued { .. } => self.failure = None,
            Verdict::Invalid(errors) => self.failed(format!("not a valid event: {errors:?}")),
            Verdict::Failed { failure, .. } => self.failed(failure.to_string()),
        }
    }

    fn failed(&mut self, why: String) {
        if self.failure.as_ref() != Some(&why) {
            tracing::warn!(error = why, "a demo event was rejected");
            self.failure = Some(why);
        }
    }
}

/// Open sessions for each event a second: a session has an event every few seconds.
const SESSIONS: f64 = 3.0;
const MOST_SESSIONS: f64 = 1000.0;

/// The shop and its open sessions.
struct Shop {
    traffic: Traffic,
    dice: Dice,
    sessions: Vec<Session>,
}

impl Shop {
    fn new(traffic: Traffic) -> Self {
        Shop { traffic, dice: Dice(fastrand::Rng::new()), sessions: Vec::new() }
    }

    /// Returns the time until the next event, as in a Poisson process.
    fn pause(&mut self) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.dice.0.f64()).ln() / self.traffic.rate)
    }

    /// Returns the next events, as the body of a post.
    fn happens(&mut self) -> Bytes {
        let most = (self.traffic.rate * SESSIONS).clamp(4.0, MOST_SESSIONS) as usize;
        // With everybody in the shop at once, no user could come more often than others.
        let room = self.sessions.len() < most.min(self.traffic.users as usize / 4 + 1);
        let index = match self.sessions.is_empty() || (room && self.dice.chance(25)) {
            true => self.comes(),
            false => self.dice.0.usize(..self.sessions.len()),
        };
        let (text, stays) = self.sessions[index].goes_on(&mut self.dice);
        if !stays {
            self.sessions.swap_remove(index);
        }
        text
    }

    /// Starts a session, or picks the open session of the same user.
    fn comes(&mut self) -> usize {
        let user = self.dice.popular(self.traffic.users);
        self.sessions.iter().position(|session| session.user == user).unwrap_or_else(|| {
            self.sessions.push(Session::new(user));
            self.sessions.len() - 1
        })
    }
}

/// A user's session.
struct Session {
    /// By popularity, from 1.
    user: u32,
    stage: Step,
    /// The product that the user looked at last.
    product: Option<u32>,
    /// Products and quantities.
    cart: Vec<(u32, u32)>,
}

#[derive(Clone, Copy)]
enum Step {
    Outside,
    Inside,
    AtTheTill,
    Served,
}

const PRODUCTS: u32 = 400;
const NAMES: &[&str] = &[
    "Ann",
    "John",
    "Zoë",
    "Priya",
    "Łukasz",
    "さくら",
    "José",
    "نورا",
    "Иван",
    "Amélie",
    "李雷",
    "Søren",
    "Δήμητρα",
    "דוד",
    "Chidi",
    "Zoë 🦊",
    "민준",
    "อรุณ",
    "O'Brien",
    "J. R.",
];
const SEARCHES: &[&str] = &[
    "running shoes",
    "rain jacket",
    "кеды",
    "傘",
    "☕ mug",
    "socks",
    "backpack 30l",
    "gift for dad",
    "شاحن",
    "tent",
    "lampe",
    "usb-c cable",
];
const AGENTS: &[&str] = &["Firefox", "Chrome", "Safari", "Edge", "App 4.2 (Android)", "App 4.2 (iOS)"];
const PAGES: &[&str] = &["/", "/sale", "/new", "/account/orders", "/help/returns", "/cart"];
const REVIEWS: &[&str] =
    &["👍", "as described", "très bien", "すごい！", "too small, sent it back", "❤️❤️❤️", "так себе"];

impl Session {
    fn new(user: u32) -> Self {
        Session { user, stage: Step::Outside, product: None, cart: Vec::new() }
    }

    fn name(&self) -> String {
        match (NAMES.get(self.user as usize - 1), self.user % 3) {
            (Some(name), _) => (*name).to_owned(),
            (None, 0) => format!("mobile-{}", self.user),
            (None, _) => format!("user-{}", self.user),
        }
    }

    /// Chooses the next action, and whether the session continues.
    fn goes_on(&mut self, dice: &mut Dice) -> (Bytes, bool) {
        match self.stage {
            Step::Outside if dice.chance(10) => {
                let campaign = dice.one(&["autumn", "black-friday", "welcome-back"]);
                (self.event("push_opened", &[("campaign", json!(campaign))]), true)
            }
            Step::Outside => {
                self.stage = Step::Inside;
                let net = dice.one(&["203.0.113", "198.51.100", "192.0.2"]);
                let ip = format!("{net}.{}", 1 + dice.below(254));
                (self.event("login", &[("ip", json!(ip)), ("agent", json!(dice.one(AGENTS)))]), true)
            }
            Step::Inside => self.looks_around(dice),
            Step::AtTheTill => {
                let approved = dice.chance(93);
                if approved {
                    self.stage = Step::Served;
                }
                let method = dice.one(&["card", "card", "paypal", "invoice"]);
                (self.event("payment", &[("method", json!(method)), ("approved", json!(approved))]), true)
            }
            Step::Served => (self.event("logout", &[]), false),
        }
    }

    fn looks_around(&mut self, dice: &mut Dice) -> (Bytes, bool) {
        match (dice.below(100), self.product) {
            (0..14, _) => {
                let fields = [("q", json!(dice.one(SEARCHES))), ("results", json!(dice.below(120)))];
                (self.event("search", &fields), true)
            }
            (14..32, Some(product)) => {
                let quantity = 1 + dice.below(10) / 7;
                self.cart.push((product, quantity));
                (self.event("add_to_cart", &[("product", json!(product)), ("quantity", json!(quantity))]), true)
            }
            (32..36, _) if self.cart.len() > 1 => {
                let product = self.cart.pop().map(|(product, _)| product);
                (self.event("remove_from_cart", &[("product", json!(product))]), true)
            }
            (36..40, Some(product)) => {
                let fields = [
                    ("product", json!(product)),
                    ("stars", json!(1 + dice.below(5))),
                    ("text", json!(dice.one(REVIEWS))),
                ];
                (self.event("review", &fields), true)
            }
            (40..54, _) if !self.cart.is_empty() => {
                self.stage = Step::AtTheTill;
                let items: u32 = self.cart.iter().map(|(_, quantity)| quantity).sum();
                let total = f64::from(self.cart.iter().map(|(product, n)| cents(*product) * n).sum::<u32>()) / 100.0;
                let fields = [("total", json!(total)), ("items", json!(items)), ("currency", json!("EUR"))];
                (self.event("checkout", &fields), true)
            }
            (54..60, _) => (self.event("logout", &[]), false),
            (60..72, _) => (self.views(dice.one(PAGES), dice), true),
            // Some users leave without logging out.
            (other, _) => {
                let product = dice.popular(PRODUCTS);
                self.product = Some(product);
                (self.views(&format!("/products/{product}"), dice), other < 97)
            }
        }
    }

    fn views(&self, page: &str, dice: &mut Dice) -> Bytes {
        self.event("page_view", &[("page", json!(page)), ("ms", json!(18 + dice.below(60)))])
    }

    /// Members in a readable order.
    fn event(&self, action: &str, fields: &[(&str, Value)]) -> Bytes {
        let mut text = b"{\"user\":".to_vec();
        string(&mut text, &self.name());
        text.extend_from_slice(b",\"action\":");
        string(&mut text, action);
        for (name, value) in fields {
            text.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
        }
        text.extend_from_slice(b",\"demo\":true}");
        text.into()
    }
}

/// Returns a product's price.
fn cents(product: u32) -> u32 {
    product * 37 % 190 * 100 + 590
}

/// The chances of the shop.
struct Dice(fastrand::Rng);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.u32(..bound)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn one<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.0.usize(..list.len())]
    }

    /// Returns one of 1 to `count`, the first most often: Zipf's law with the exponent 1.
    fn popular(&mut self, count: u32) -> u32 {
        ((f64::from(count) + 1.0).powf(self.0.f64()) as u32).clamp(1, count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::event::{Limits, Parsed, parse};

    fn events(users: u32, count: usize) -> Vec<Value> {
        let mut shop = Shop::new(Traffic { rate: 20.0, users });
        let limits = Limits { event: 32 * 1024, batch: 1, now_ms: 0 };
        let event = |_| {
            let body = shop.happens();
            let parsed = parse(&body, BodyFormat::Json, &limits);
            assert!(matches!(parsed, Ok(Parsed::One(checked)) if checked.is_ok()), "{body:?}");
            serde_json::from_slice(&body).expect("JSON")
        };
        (0..count).map(event).collect()
    }

    fn count<'a>(events: &'a [Value], field: &str) -> HashMap<&'a str, usize> {
        let mut counts = HashMap::new();
        for event in events {
            *counts.entry(event[field].as_str().expect("text")).or_default() += 1;
        }
        counts
    }

    #[test]
    fn every_event_is_valid_and_marked_as_demo() {
        for users in [1, 3, 200, 1_000_000] {
            let events = events(users, 5_000);
            assert!(events.iter().all(|event| event["demo"] == true));
            let names = count(&events, "user").len();
            assert!(names <= users as usize && (users < 200 || names > 100), "{names} of {users}");
        }
    }

    #[test]
    fn sessions_follow_the_order_of_a_shop() {
        let events = events(200, 20_000);
        let (users, actions) = (count(&events, "user"), count(&events, "action"));
        for action in ["login", "page_view", "search", "add_to_cart", "checkout", "payment", "review", "logout"] {
            assert!(actions.get(action).is_some_and(|count| *count > 100), "{action}: {actions:?}");
        }
        assert!(actions["page_view"] > actions["checkout"] * 3, "{actions:?}");
        assert!(users["Ann"] > 5 * users["user-100"], "{users:?}");
        // Nobody pays with an empty cart.
        let mut carts: HashMap<&str, i32> = HashMap::new();
        for event in &events {
            let cart = carts.entry(event["user"].as_str().expect("text")).or_default();
            match event["action"].as_str() {
                Some("add_to_cart") => *cart += 1,
                Some("checkout") => assert!(*cart > 0, "{event}"),
                _ => {}
            }
        }
    }

    #[test]
    fn pauses_have_the_mean_of_the_rate_and_vary() {
        let mut shop = Shop::new(Traffic { rate: 50.0, users: 1 });
        let pauses: Vec<f64> = (0..20_000).map(|_| shop.pause().as_secs_f64()).collect();
        let mean = pauses.iter().sum::<f64>() / pauses.len() as f64;
        assert!((0.019..0.021).contains(&mean), "{mean}");
        assert!(pauses.iter().any(|pause| *pause > 0.08) && pauses.iter().any(|pause| *pause < 0.001));
    }
}
