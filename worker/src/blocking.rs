//! Calls that block, away from the tasks.

/// Runs `call` on a thread that may block. If the future is dropped the call still ends, unheard.
///
/// # Panics
/// If the call panics, or the runtime shuts down before it ran.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => panic!("the runtime ended before a blocking call: {error}"),
        },
    }
}
