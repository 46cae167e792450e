//! Sessions between one call and the next: whoever looks at a plan most likely applies it. They
//! belong to this process.

use super::Sessions;
use futures_util::future::join_all;
use std::cell::RefCell;
use std::time::Duration;

thread_local! {
    static KEPT: RefCell<Sessions> = RefCell::default();
}

/// The sessions that the last call left. A node may have ended its own meanwhile.
pub fn take() -> Sessions {
    KEPT.take()
}

/// Leaves sessions for the next call, if it comes before they have been idle for so long; zero:
/// closes them.
pub async fn keep(mut sessions: Sessions, most: Duration) {
    if most.is_zero() {
        return;
    }
    let resting = sessions.iter_mut().map(async |(node, session)| {
        let rests = session.rest(most).await.is_ok();
        rests.then_some(*node)
    });
    let resting = join_all(resting).await;
    sessions.retain(|node, _| resting.contains(&Some(*node)));
    KEPT.set(sessions);
}
