//! Messages of one connection are verified side by side, and admitted in the order in which they came: a device sends
//! its chain in order, so a predecessor that is not there when its turn has come is missing, and not just slower.

use tokio::sync::oneshot;

/// The order of one connection's messages.
#[derive(Debug, Default)]
pub struct Order {
    last: Option<oneshot::Receiver<()>>,
}

impl Order {
    /// The turn of the message that came now.
    pub(super) fn next(&mut self) -> Turn {
        let (done, waiting) = oneshot::channel();
        Turn {
            before: self.last.replace(waiting),
            _done: done,
        }
    }
}

/// One message's place in the order. Dropped, it is the next one's turn; so it is to be waited for first.
#[derive(Debug)]
pub(super) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

impl Turn {
    /// Resolves when every message before this one has had its turn.
    pub(super) async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            // It only ever says that the other turn was dropped.
            let _ = before.await;
        }
    }
}
