//! When something is due, and what stays: pure values and functions that take `now`.
//!
//! Nothing here reads a clock, a store or the state; the one thing asked of the machine is the time zone database ([`zone`]), when a policy's calendar is
//! compiled. So only the leader compiles calendars and plans, and puts instants into commands: applying a command never depends on which release of the
//! zone database a machine has.
//!
//! In reading order:
//! - [`recurrence`]: a schedule as a person writes it (`daily 02:00`), with [`cron`] and the pieces of text in [`words`];
//! - [`occurrence`]: the instants that it means in a time zone, and the rules at the edges of daylight saving;
//! - [`window`]: the hours of the week in which work may start;
//! - [`calendar`]: all three with jitter: what is due for an item now, what was missed, when to look again;
//! - [`backoff`]: whether, when and where a failed attempt is tried again;
//! - [`retention`]: which points stay and why;
//! - [`mod@preview`]: what a policy would do, shown before it does.

pub mod backoff;
pub mod calendar;
pub mod cron;
mod draw;
pub mod occurrence;
pub mod preview;
pub mod recurrence;
pub mod retention;
pub mod window;
pub mod words;
pub mod zone;

pub use backoff::{Retry, retry_at};
pub use calendar::{Calendar, CalendarError, Compiled, Decision, Due, Standing};
pub use preview::{Preview, preview};
pub use recurrence::{Schedule, ScheduleError};
pub use retention::{PointView, Retention, RetentionError, Verdict, plan};
pub use window::{Window, Windows, WindowsError};
