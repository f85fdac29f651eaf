//! SIGINT and SIGTERM: the first asks a command to finish, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// Resolves at the first SIGINT or SIGTERM. From then on a second one ends the process with exit code 130.
pub async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("cannot receive signals");
        return std::future::pending().await;
    };
    let mut next = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    next().await;
    tokio::spawn(async move {
        next().await;
        std::process::exit(130);
    });
}

/// Returns a token that is cancelled at the first signal, for a command with an async runtime.
pub fn cancelled_by_signals() -> CancellationToken {
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        asked_to_end().await;
        cancel.cancel();
    });
    stop
}

/// Returns a flag that a thread sets at the first signal, for a command without an async runtime.
pub fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let flag = stop.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            asked_to_end().await;
            flag.store(true, Ordering::Relaxed);
            std::future::pending::<()>().await; // keeps the runtime for the second signal
        });
    })?;
    Ok(stop)
}
