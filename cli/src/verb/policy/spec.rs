//! What options say of a policy. Pure.

use tresor_proto::v1::PolicySpec;

use crate::args::PolicyOptions;

/// A policy of that name as the options alone say it.
pub(super) fn made(name: String, options: &PolicyOptions) -> PolicySpec {
    changed(
        PolicySpec {
            name,
            ..Default::default()
        },
        options,
    )
}

/// A policy with what the options say; what they do not name stays.
pub(super) fn changed(mut spec: PolicySpec, options: &PolicyOptions) -> PolicySpec {
    let set = |text: &mut String, option: &Option<String>| {
        if let Some(option) = option {
            text.clone_from(option);
        }
    };
    set(&mut spec.schedule, &options.schedule);
    set(&mut spec.zone, &options.zone);
    set(&mut spec.jitter, &options.jitter);
    set(&mut spec.retention, &options.retention);
    set(&mut spec.late_after, &options.late_after);
    if !options.windows.is_empty() {
        spec.windows.clone_from(&options.windows);
    }
    spec.priority = options.priority.unwrap_or(spec.priority);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let options = |schedule: Option<&str>, windows: &[&str]| PolicyOptions {
            schedule: schedule.map(str::to_owned),
            zone: None,
            windows: windows.iter().map(|window| (*window).to_owned()).collect(),
            jitter: None,
            retention: None,
            priority: None,
            late_after: None,
        };
        let first = PolicyOptions {
            retention: Some(String::from("last 3")),
            priority: Some(7),
            ..options(Some("daily 03:00"), &["sat 00:00-24:00"])
        };
        let first = made(String::from("daily"), &first);
        let second = changed(first.clone(), &options(Some("every 15m"), &[]));
        let expected = PolicySpec {
            schedule: String::from("every 15m"),
            ..first.clone()
        };
        assert_eq!(second, expected);
        let third = changed(first.clone(), &options(None, &["sun 01:00-02:00"]));
        assert_eq!(third.windows, ["sun 01:00-02:00"]);
        assert_eq!((third.priority, third.schedule), (7, first.schedule));
    }
}
