//! Tasks of a core, and what a panic does to one.
//!
//! Owns the count of panics and the hook that remembers where one came from. A panic ends its task and nothing else.
//! Never stores a task's future twice: `spawn` moves it straight to where it will run.
//! Read next: `driver/` (who polls).

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use super::driver;

/// Tasks that ended in a panic since the process began, on all cores. Written only when one does.
static PANICS: AtomicU64 = AtomicU64::new(0);
static HOOK: Once = Once::new();

thread_local! {
    /// Those of this thread, for a simulation to see.
    #[cfg(test)]
    static PANICS_HERE: Cell<u64> = const { Cell::new(0) };
    /// Whether a task is being polled on this thread, so that its panic is ours to report.
    static POLLING: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic of a task came from.
    static ORIGIN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// How many tasks ended in a panic since the process began.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// As [`panics`], of this thread only.
#[cfg(test)]
pub(super) fn panics_here() -> u64 {
    PANICS_HERE.get()
}

/// Runs `future` on this core, beside the others, until it ends or the core does. A panic in it is logged with its
/// backtrace and counted by [`panics`]; it ends this task only.
///
/// # Panics
/// If this thread is not a core, that is outside of [`run`](super::run).
pub fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    driver::spawn(Guarded {
        future: Some(future),
    });
}

/// Makes panics of tasks leave their backtrace behind for [`report`] instead of on standard error.
pub(super) fn install_hook() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if POLLING.get() {
                let place = info
                    .location()
                    .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
                let text = format!("{place}\n{}", Backtrace::force_capture());
                ORIGIN.set(Some(text));
            } else {
                before(info);
            }
        }));
    });
}

/// A task whose panics stay inside.
struct Guarded<F> {
    /// `None` once it panicked: such a future must not be polled again.
    future: Option<F>,
}

impl<F: Future<Output = ()>> Future for Guarded<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the future is pinned when the task is: it is never moved out, only dropped in place below.
        let mut future = unsafe { self.map_unchecked_mut(|task| &mut task.future) };
        let before = POLLING.replace(true);
        let polled = panic::catch_unwind(AssertUnwindSafe(|| match future.as_mut().as_pin_mut() {
            Some(future) => future.poll(context),
            None => Poll::Ready(()),
        }));
        let polled = polled.unwrap_or_else(|payload| {
            report(payload.as_ref());
            // What the task owned is dropped here, where a second panic is still caught.
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| future.set(None))) {
                report(payload.as_ref());
            }
            Poll::Ready(())
        });
        POLLING.set(before);
        polled
    }
}

#[cold]
fn report(payload: &(dyn Any + Send)) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    #[cfg(test)]
    PANICS_HERE.set(PANICS_HERE.get() + 1);
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let origin = ORIGIN
        .take()
        .unwrap_or_else(|| "an unknown place".to_owned());
    tracing::error!("A task of this core panicked and was ended: {message}, at {origin}");
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::reactor::simulated::{self, Faults};
    use crate::reactor::sleep;

    #[test]
    fn a_panic_ends_its_task_only() {
        simulated::run(0, Faults::NONE, async {
            simulated::expect_panics(1);
            let before = panics();
            let owned = Rc::new(());
            let kept = Rc::clone(&owned);
            spawn(async move {
                sleep(Duration::from_millis(1)).await;
                let _kept = kept;
                panic!("on purpose");
            });
            sleep(Duration::from_secs(1)).await;
            assert!(panics() > before);
            assert_eq!(Rc::strong_count(&owned), 1, "what the task owned is gone");
        });
    }

    #[test]
    fn a_task_is_as_big_as_its_future() {
        async fn big() -> usize {
            let bytes = [1_u8; 1000];
            sleep(Duration::ZERO).await;
            bytes.len()
        }
        let future = big();
        let size = size_of_val(&future);
        assert!(
            size_of_val(&Guarded {
                future: Some(future)
            }) <= size + 8
        );
    }
}
