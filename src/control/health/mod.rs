//! Health checks: which servers are asked, when, and what their answers mean for the backends. Spec backends 7.
//!
//! Owns every check that is under way. A question is asked once, however many backends, entry points and cores want to know;
//! checks that a reload did not change go on as if there had been none. Never asks more servers at once than it may, and
//! spreads those that are new. The outcome goes into the availability of each server, which balancers see at once.
//! Read next: `request.rs` (one check), `backend/availability.rs` (where the outcome goes).

mod request;
mod url;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::compile::health::{Availability, Check, Question, Why};
use crate::limits::{HEALTH_CHECK_SPACING, HEALTH_CHECKS_MAX};
use crate::settings::Settings;

use request::Unhealthy;

/// A check under way.
type Asking = Pin<Box<dyn Future<Output = Result<(), Unhealthy>> + Send>>;

/// How a server at these addresses is asked: over the network, or in a test.
type Ask = dyn Fn(Arc<Question>, Vec<IpAddr>) -> Asking + Send + Sync;

/// Asks over the network, with the trust that requests have.
fn over_the_network(settings: Arc<Settings>) -> Arc<Ask> {
    Arc::new(move |question, addresses| {
        let settings = Arc::clone(&settings);
        Box::pin(async move { request::ask(&question, &addresses, &settings).await })
    })
}

/// A server of a backend that wants to know.
#[derive(Debug)]
struct Subject {
    backend: String,
    weight: u32,
    availability: Arc<Availability>,
    is_down: bool,
}

/// What is known of one question.
#[derive(Debug)]
struct Asked {
    subjects: Vec<Subject>,
    addresses: Vec<IpAddr>,
    due: Instant,
    /// The check under way, and its number.
    under_way: Option<(u64, AbortHandle)>,
}

struct Answer {
    question: Arc<Question>,
    number: u64,
    result: Result<(), Unhealthy>,
}

/// Every check there is.
pub struct Health {
    ask: Arc<Ask>,
    asked: HashMap<Arc<Question>, Asked>,
    under_way: usize,
    /// How many may be under way at once.
    most: usize,
    number: u64,
    sender: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Health {
    /// Asks nobody before [`Health::want`].
    pub fn over_the_network(settings: &Arc<Settings>) -> Self {
        // A share of what may be open at once: clients need the most of it.
        let most = (settings.descriptors_max / 16).clamp(1, HEALTH_CHECKS_MAX);
        Self::new(most, over_the_network(Arc::clone(settings)))
    }

    fn new(most: usize, ask: Arc<Ask>) -> Self {
        // Holds at most one answer for each check under way.
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            ask,
            asked: HashMap::new(),
            under_way: 0,
            most,
            number: 0,
            sender,
            answers,
        }
    }

    /// From now on these are checked and no others. A server that is checked no more counts as healthy; one that is new, or
    /// asked something else than before, stays what it was until its first answer, which is looked for at once.
    pub fn want(&mut self, checks: Vec<Check>, now: Instant) {
        let mut down: HashMap<*const Availability, Arc<Availability>> = HashMap::new();
        for asked in self.asked.values_mut() {
            for subject in asked.subjects.drain(..) {
                if subject.is_down {
                    down.insert(Arc::as_ptr(&subject.availability), subject.availability);
                }
            }
        }
        let mut fresh = Vec::new();
        for check in checks {
            let is_down = down.remove(&Arc::as_ptr(&check.availability)).is_some();
            let subject = Subject {
                backend: check.backend,
                weight: check.weight,
                availability: check.availability,
                is_down,
            };
            let question = Arc::new(check.question);
            let asked = self.asked.entry(Arc::clone(&question)).or_insert_with(|| {
                fresh.push(question);
                Asked {
                    subjects: Vec::new(),
                    addresses: Vec::new(),
                    due: now,
                    under_way: None,
                }
            });
            asked.addresses = check.addresses;
            asked.subjects.push(subject);
        }
        for availability in down.into_values() {
            availability.readmit(Why::Unhealthy);
        }
        let under_way = &mut self.under_way;
        self.asked.retain(|_, asked| {
            let is_wanted = !asked.subjects.is_empty();
            if !is_wanted && let Some((_, task)) = asked.under_way.take() {
                task.abort();
                *under_way -= 1;
            }
            is_wanted
        });
        self.spread(&fresh, now);
        self.ask_due(now);
    }

    /// Spreads the first round of new questions over their interval, with a bounded number each second: the rounds after it
    /// are spread in the same way.
    fn spread(&mut self, fresh: &[Arc<Question>], now: Instant) {
        let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX).max(1);
        for (at, question) in (0..).zip(fresh) {
            let at: u32 = at;
            let wait = (HEALTH_CHECK_SPACING * at).min(question.interval / count * at);
            if let Some(asked) = self.asked.get_mut(question) {
                asked.due = now + wait;
            }
        }
    }

    /// Begins what is due, the longest due first, as far as there may be more under way.
    pub fn ask_due(&mut self, now: Instant) {
        let mut due: Vec<(Instant, Arc<Question>)> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.under_way.is_none() && asked.due <= now)
            .map(|(question, asked)| (asked.due, Arc::clone(question)))
            .collect();
        due.sort_unstable();
        for (_, question) in due {
            if self.under_way >= self.most {
                return;
            }
            self.ask(question, now);
        }
    }

    fn ask(&mut self, question: Arc<Question>, now: Instant) {
        let Some(asked) = self.asked.get_mut(&question) else {
            return;
        };
        self.number += 1;
        self.under_way += 1;
        let number = self.number;
        let asking = (self.ask)(Arc::clone(&question), asked.addresses.clone());
        let sender = self.sender.clone();
        // The round goes on as it was spread, unless it has fallen behind.
        asked.due = (asked.due + question.interval).max(now);
        let task = tokio::spawn(async move {
            let result = asking.await;
            // Control is gone only when the process ends.
            let _ = sender.send(Answer {
                question,
                number,
                result,
            });
        });
        asked.under_way = Some((number, task.abort_handle()));
    }

    /// Waits for the next answer and tells its servers. May be cancelled.
    pub async fn answer(&mut self) {
        // We hold a sender ourselves, so the channel cannot end.
        let Some(answer) = self.answers.recv().await else {
            return;
        };
        let Some(asked) = self.asked.get_mut(&answer.question) else {
            return;
        };
        // Asked again in between: this is the answer to a question of before.
        if asked.under_way.as_ref().map(|(number, _)| *number) != Some(answer.number) {
            return;
        }
        asked.under_way = None;
        self.under_way -= 1;
        for subject in &mut asked.subjects {
            subject.hear(&answer.question.server, &answer.result);
        }
    }
}

impl Subject {
    fn hear(&mut self, url: &str, result: &Result<(), Unhealthy>) {
        let Self {
            backend, weight, ..
        } = &*self;
        match (result, self.is_down) {
            (Ok(()), false) => {}
            (Ok(()), true) => {
                warn!(
                    "Health check up: Returning to server list. Backend: \"{backend}\" URL: \"{url}\" Weight: {weight}"
                );
                self.availability.readmit(Why::Unhealthy);
            }
            (Err(reason), false) => {
                warn!(
                    "Health check failed: Remove from server list. Backend: \"{backend}\" URL: \"{url}\" Weight: {weight} Reason: {reason}"
                );
                self.availability.rule_out(Why::Unhealthy);
            }
            (Err(reason), true) => warn!(
                "Health check still failing. Backend: \"{backend}\" URL: \"{url}\" Reason: {reason}"
            ),
        }
        self.is_down = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use tokio::time::{Duration, sleep, sleep_until};

    use super::*;
    use crate::compile::health::Changes;

    /// What the servers of a test do, and when they were asked.
    #[derive(Default)]
    struct Servers {
        asked: Vec<(String, Instant)>,
        /// What each answers instead of "I am well", and after how long.
        sick: BTreeMap<String, (u16, Duration)>,
    }

    thread_local! {
        static SERVERS: RefCell<Servers> = RefCell::default();
    }

    fn invented(question: Arc<Question>, _: Vec<IpAddr>) -> Asking {
        Box::pin(async move {
            let sick = SERVERS.with_borrow_mut(|servers| {
                servers
                    .asked
                    .push((question.server.clone(), Instant::now()));
                servers.sick.get(&question.server).copied()
            });
            match sick {
                None => Ok(()),
                Some((status, after)) => {
                    sleep(after).await;
                    Err(Unhealthy::Status(status))
                }
            }
        })
    }

    fn sicken(server: &str, after: Duration) {
        SERVERS.with_borrow_mut(|servers| {
            servers.sick.insert(server.to_owned(), (500, after));
        });
    }

    fn heal(server: &str) {
        SERVERS.with_borrow_mut(|servers| servers.sick.remove(server));
    }

    /// When each of these checks was made, in milliseconds since `start`; forgets them.
    fn asked(start: Instant) -> Vec<(String, u128)> {
        let asked = SERVERS.with_borrow_mut(|servers| std::mem::take(&mut servers.asked));
        asked
            .into_iter()
            .map(|(server, at)| (server, (at - start).as_millis()))
            .collect()
    }

    fn health(most: usize) -> Health {
        SERVERS.set(Servers::default());
        Health::new(most, Arc::new(invented))
    }

    fn question(server: &str, interval: Duration) -> Question {
        Question {
            server: server.to_owned(),
            path: "/".to_owned(),
            port: None,
            scheme: None,
            host: None,
            fields: Vec::new(),
            interval,
        }
    }

    fn check(server: &str, seconds: u64) -> Check {
        Check {
            backend: "b".to_owned(),
            weight: 1,
            availability: Arc::new(Availability::new(Arc::<Changes>::default())),
            addresses: Vec::new(),
            question: question(server, Duration::from_secs(seconds)),
        }
    }

    /// The loop of control, for some time.
    async fn turn(health: &mut Health, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let next = (Instant::now() + Duration::from_millis(100)).min(end);
            loop {
                tokio::select! {
                    () = health.answer() => {}
                    () = sleep_until(next) => break,
                }
            }
            health.ask_due(Instant::now());
        }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_is_asked_at_once_and_then_each_interval() {
        let (mut health, start) = (health(8), Instant::now());
        let (first, other) = (check("a", 10), check("a", 10));
        let availability = [&first, &other].map(|check| Arc::clone(&check.availability));
        let are_available = || availability.each_ref().map(|one| one.is_available());
        health.want(vec![first, other], start);
        turn(&mut health, seconds(25)).await;
        let times = [0, 10_000, 20_000].map(|at| ("a".to_owned(), at));
        assert_eq!(asked(start), times, "once for both");
        assert_eq!(are_available(), [true, true]);
        sicken("a", Duration::ZERO);
        turn(&mut health, seconds(10)).await;
        assert_eq!(are_available(), [false, false]);
        heal("a");
        turn(&mut health, seconds(10)).await;
        assert_eq!(are_available(), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_changes_nothing_of_what_stays() {
        let (mut health, start) = (health(8), Instant::now());
        let (stays, goes) = (check("a", 10), check("b", 10));
        health.want(vec![stays.clone(), goes], start);
        for _ in 0..12 {
            turn(&mut health, seconds(2)).await;
            health.want(vec![stays.clone()], Instant::now());
        }
        let asked = asked(start);
        let of_a: Vec<_> = asked.iter().filter(|(server, _)| server == "a").collect();
        assert_eq!(of_a.len(), 3, "{asked:?}");
        assert_eq!(asked.len() - of_a.len(), 1, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_lasts_until_the_next_answer() {
        let mut health = health(8);
        sicken("a", seconds(1));
        let one = check("a", 10);
        health.want(vec![one.clone()], Instant::now());
        assert!(one.availability.is_available(), "until it has answered");
        turn(&mut health, seconds(2)).await;
        assert!(!one.availability.is_available());
        // Another question is asked at once, and the server stays away until its answer.
        let mut other = one.clone();
        other.question.path = "/other".to_owned();
        health.want(vec![other], Instant::now());
        assert!(!one.availability.is_available());
        turn(&mut health, Duration::from_millis(1)).await;
        heal("a");
        turn(&mut health, seconds(2)).await;
        assert!(!one.availability.is_available(), "it was asked while ill");
        turn(&mut health, seconds(10)).await;
        assert!(one.availability.is_available());
        // Who is checked no more is healthy, and an answer that is still to come is not heard.
        sicken("a", seconds(1));
        turn(&mut health, seconds(10)).await;
        assert!(!one.availability.is_available());
        turn(&mut health, seconds(9)).await;
        health.want(Vec::new(), Instant::now());
        assert!(one.availability.is_available());
        turn(&mut health, seconds(20)).await;
        assert!(one.availability.is_available());
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_servers_are_not_asked_at_once() {
        let (mut health, start) = (health(10_000), Instant::now());
        let checks = (0..10_000).map(|number| check(&number.to_string(), 30));
        health.want(checks.collect(), start);
        turn(&mut health, seconds(90)).await;
        let mut each_second = BTreeMap::<u128, usize>::new();
        for (_, at) in asked(start) {
            *each_second.entry(at / 1_000).or_default() += 1;
        }
        assert_eq!(each_second.len(), 90);
        assert!(
            each_second.values().all(|count| (250..450).contains(count)),
            "{each_second:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_servers_are_asked_at_once() {
        let (mut health, start) = (health(8), Instant::now());
        let checks = ["a", "b", "c", "d"].map(|server| check(server, 30));
        health.want(checks.into(), start);
        turn(&mut health, seconds(1)).await;
        let asked = asked(start);
        assert_eq!(asked.len(), 4);
        assert!(asked.iter().all(|(_, at)| *at <= 100), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_under_way_than_may_be_and_all_have_their_turn() {
        let (mut health, start) = (health(2), Instant::now());
        let names = ["a", "b", "c", "d", "e"];
        for name in names {
            sicken(name, seconds(1));
        }
        health.want(names.map(|server| check(server, 2)).into(), start);
        turn(&mut health, seconds(20)).await;
        let asked = asked(start);
        for (_, at) in &asked {
            let together = asked
                .iter()
                .filter(|(_, other)| (*at..*at + 1_000).contains(other));
            assert!(together.count() <= 2, "{asked:?}");
        }
        for name in names {
            let own = asked.iter().filter(|(server, _)| server == name).count();
            assert!(own >= 6, "{name}: {asked:?}");
        }
    }
}
