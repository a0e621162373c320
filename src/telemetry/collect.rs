//! What would be logged, for commands that print it themselves: warnings and errors, in their order.
//!
//! Never blocks and never writes anything. Read next: `log.rs`.

use std::fmt;

use crossbeam::channel::{Receiver, Sender, unbounded};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A line that was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub is_error: bool,
    pub text: String,
}

/// Takes what is logged while it is the subscriber.
#[derive(Debug)]
struct Collector(Sender<Line>);

/// What `work` returns, and what it has logged.
pub fn collect<T>(work: impl FnOnce() -> T) -> (T, Vec<Line>) {
    let (sender, lines): (_, Receiver<Line>) = unbounded();
    let outcome = tracing::subscriber::with_default(Collector(sender), work);
    (outcome, lines.try_iter().collect())
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("coreway")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        // Who collects outlives the subscriber.
        let _ = self.0.send(Line {
            is_error: *event.metadata().level() == Level::ERROR,
            text: message.0,
        });
    }

    // There are no spans in this program.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_errors_are_collected_in_their_order() {
        let (outcome, lines) = collect(|| {
            tracing::error!("first {}", 1);
            tracing::info!("not this");
            tracing::warn!("second");
            7
        });
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (line.is_error, &*line.text))
            .collect();
        assert_eq!(outcome, 7);
        assert_eq!(lines, [(true, "first 1"), (false, "second")]);
    }
}
