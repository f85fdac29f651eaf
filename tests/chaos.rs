//! Nothing that was acknowledged is ever lost, and nothing is missed in silence: under load and with open streams, one fault
//! after the other, and at last a random sequence of them.
//!
//! `dev/test` runs the short form. `dev/chaos` runs the same for longer, with more streams and more of each fault.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::wait::{PATIENCE, eventually, within};
use common::{
    Application, Broker, HEALING, Kafka, Ledger, Load, Proxy, Random, Resources, Retries, Servers, Topic, Watchers,
    Weather, kafka,
};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(10);

/// Whether this is the long run of `dev/chaos`.
fn long() -> bool {
    std::env::var("FOOTFALL_CHAOS").is_ok_and(|form| form == "long")
}

/// How often a fault is repeated.
fn rounds(short: usize) -> usize {
    if long() { 5 * short } else { short }
}

fn streams() -> usize {
    if long() { 50 } else { 4 }
}

/// Runs `scenario` beside a load that retries and beside streams, and holds what was told against the topic.
#[track_caller]
fn assert_nothing_is_lost(
    app: &Application,
    servers: &Servers,
    retries: Retries,
    allowed: &'static [&'static str],
    scenario: impl FnOnce(&Load),
) -> Ledger {
    let mut ledger = None;
    let followers = Watchers::beside(streams(), servers, app.topic(), allowed, || {
        ledger = Some(Load::new(servers, "/api/v1/events", retries).beside(scenario));
    });
    let ledger = ledger.expect("the load has run");
    ledger.assert_truthful(app.topic());
    ledger.assert_within(DEADLINE);
    if allowed.is_empty() {
        assert!(followers.iter().all(|follower| follower.dropped == 0), "a stream that reads was too slow");
    }
    ledger
}

// --- The application -------------------------------------------------------------------------------------------------

#[test]
fn kill_9_and_restart_in_a_loop_loses_nothing() {
    let first = Application::on(Broker::Kafka).start();
    let servers = Servers::of(&first);
    let mut running = first.replica().start();
    servers.set(0, running.address);
    assert_nothing_is_lost(&first, &servers, Retries::ById, &[], |load| {
        for _ in 0..rounds(4) {
            load.wait_for(50, 201);
            running.kill();
            running = first.replica().start();
            servers.set(0, running.address);
        }
        load.wait_for(50, 201);
    });
}

#[test]
fn sigterm_and_restart_in_a_loop_loses_nothing_and_cuts_no_answer() {
    let first = Application::on(Broker::Kafka).start();
    let servers = Servers::of(&first);
    let mut running = first.replica().start();
    servers.set(0, running.address);
    assert_nothing_is_lost(&first, &servers, Retries::ById, &[], |load| {
        for _ in 0..rounds(3) {
            load.wait_for(50, 201);
            running.stop();
            running = first.replica().start();
            servers.set(0, running.address);
        }
        load.wait_for(50, 201);
    });
}

#[test]
fn an_application_that_stood_still_goes_on() {
    let app = Application::on(Broker::Kafka).start();
    assert_nothing_is_lost(&app, &Servers::of(&app), Retries::ById, &[], |load| {
        for _ in 0..rounds(1) {
            load.wait_for(50, 201);
            common::application::signal(app.process_id(), "STOP");
            thread::sleep(Duration::from_secs(2));
            common::application::signal(app.process_id(), "CONT");
        }
        load.wait_for(50, 201);
    });
}

#[test]
fn clients_that_hop_between_two_replicas_of_which_one_dies_lose_nothing() {
    let first = Application::on(Broker::Kafka).start();
    // Streams end every second, and their clients come back to the other one.
    let start = || first.replica().env("FOOTFALL_FEED__MAX_AGE", "1s").start();
    let mut replicas = [start(), start()];
    let servers = Servers::at(&[replicas[0].address, replicas[1].address]);
    assert_nothing_is_lost(&first, &servers, Retries::Elsewhere, &[], |load| {
        for round in 0..rounds(3) {
            load.wait_for(100, 201);
            replicas[round % 2].kill();
            load.wait_for(20, 201);
            replicas[round % 2] = start();
            servers.set(round % 2, replicas[round % 2].address);
        }
        load.wait_for(100, 201);
    });
}
