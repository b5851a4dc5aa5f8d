//! Endpoints that events are posted to: what they are, where they may be, how often one is tried, and how a post is signed.

mod address;
mod signature;

pub use address::{Target, is_public};
pub use signature::{Secret, sign};

use super::{member_feed::EventKind, name::named};
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    typed_id,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

typed_id! {
    /// An endpoint.
    WebhookId,
}

named! {
    /// Whether an endpoint is served.
    WebhookState {
        Active = "ACTIVE",
        Paused = "PAUSED",
        Disabled = "DISABLED",
    }
}

named! {
    /// What is sent of a member beside its id.
    Columns {
        None = "NONE",
        Masked = "MASKED",
        Whole = "WHOLE",
    }
}

named! {
    /// What became of an event for an endpoint.
    DeliveryState {
        Pending = "PENDING",
        Delivered = "DELIVERED",
        Failed = "FAILED",
    }
}

named! {
    /// Why an endpoint was disabled.
    Reason {
        /// It said so.
        Gone = "GONE",
        /// It took nothing for [`FAILING_DAYS`].
        Failing = "FAILING",
        /// What comes next is not kept any more.
        PositionDropped = "POSITION_DROPPED",
    }
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    pub id: WebhookId,
    pub programme: ProgrammeId,
    pub url: String,
    /// All when empty.
    pub kinds: Vec<EventKind>,
    pub columns: Columns,
    pub state: WebhookState,
    pub reason: Option<Reason>,
    pub position: i64,
    pub failing_since: Option<DateTime<Utc>>,
    pub version: i64,
    pub create_time: DateTime<Utc>,
}

impl Webhook {
    /// Lets it get all after a position again, which is kept. One that lost its place goes on from there: what came before is not kept.
    pub fn replay(&mut self, begin: i64) {
        if self.reason == Some(Reason::PositionDropped) {
            (self.state, self.reason, self.failing_since) = (WebhookState::Active, None, None);
            self.position = begin;
        } else {
            self.position = self.position.min(begin);
        }
    }
}

/// Its secrets, sealed.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    pub secret: Vec<u8>,
    /// The one before, while it still signs.
    pub old_secret: Option<Vec<u8>>,
}

/// An event for an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub position: i64,
    pub fact: Uuid,
    pub member: MemberId,
    pub kind: EventKind,
    pub changed_fields: Vec<String>,
    pub event_time: DateTime<Utc>,
    pub state: DeliveryState,
    /// Since it was last to be sent anew.
    pub attempt_count: u32,
    pub next_attempt_time: DateTime<Utc>,
    pub attempts: Vec<Attempt>,
}

/// One time that an event was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub time: DateTime<Utc>,
    /// Of the answer; 0 when there was none.
    pub status: u16,
    pub latency_ms: u32,
    /// Why there was none; empty otherwise.
    pub error: String,
}

/// Attempts of a delivery that are kept.
pub const KEPT_ATTEMPTS: usize = 20;
/// An endpoint that has taken nothing for so long is disabled.
pub const FAILING_DAYS: i64 = 5;

/// The waits after attempts that failed; after the last of them an event is given up. Even at their shortest they last longer than an endpoint
/// may fail: before anything is given up that it did not take, it has taken something else, or is disabled with all that waits.
const WAITS: [Duration; 13] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
    Duration::from_secs(24 * 3600),
    Duration::from_secs(24 * 3600),
    Duration::from_secs(24 * 3600),
    Duration::from_secs(24 * 3600),
];
/// The least of a wait that is waited, so that those who failed at once do not all come back at once, and not too soon either.
const LEAST_SHARE: f64 = 0.75;

/// How long to wait after so many attempts that failed: of the schedule's wait [`LEAST_SHARE`], and `share`, which is 0 to 1, of the rest; None
/// to give up.
pub fn wait(failed: u32, share: f64) -> Option<Duration> {
    let at = usize::try_from(failed).ok()?.checked_sub(1)?;
    let share = LEAST_SHARE + (1.0 - LEAST_SHARE) * share.clamp(0.0, 1.0);
    WAITS.get(at).map(|wait| wait.mul_f64(share))
}

/// The least time that is worth a post.
const LEAST_POST: Duration = Duration::from_secs(1);

/// How long a post may take when `left` is left of the lease on its endpoint: never beyond that, so that no other replica posts beside it, and
/// never longer than `at_most`. None when nothing is to be posted any more.
pub fn post_time(left: Duration, at_most: Duration) -> Option<Duration> {
    (left >= LEAST_POST).then(|| left.min(at_most))
}

/// What an attempt means for its delivery and its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// To be sent again after a wait, or given up.
    Again(Option<Duration>),
    /// The endpoint wants nothing any more.
    Gone,
}

/// Judges the answer to the attempt that follows `failed` others; `share` as in [`wait`].
pub fn judge(status: u16, failed: u32, share: f64) -> Verdict {
    match status {
        200..=299 => Verdict::Delivered,
        410 => Verdict::Gone,
        _ => Verdict::Again(wait(failed + 1, share)),
    }
}

/// Whether an endpoint that fails since then is given up.
pub fn has_failed_for_long(since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - since >= TimeDelta::days(FAILING_DAYS)
}

/// The `type` of a payload, e.g. `member.tier_changed`.
pub fn event_type(kind: EventKind) -> String {
    format!("member.{}", kind.name().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(share: f64) -> (u32, Duration) {
        let (mut whole, mut tried) = (Duration::ZERO, 0);
        while let Verdict::Again(Some(wait)) = judge(503, tried, share) {
            whole += wait;
            tried += 1;
        }
        assert_eq!(judge(0, tried, share), Verdict::Again(None));
        (tried, whole)
    }

    #[test]
    fn an_event_is_tried_for_as_long_as_an_endpoint_may_fail_however_short_its_waits_are() {
        let longest = schedule(1.0);
        assert_eq!((longest.0, longest.1.as_secs() / 3600), (13, 171));
        let shortest = schedule(0.0);
        assert_eq!((shortest.0, shortest.1.as_secs() / 3600), (13, 128));
        assert!(shortest.1 > Duration::from_secs(24 * 3600 * FAILING_DAYS.unsigned_abs()));
        assert_eq!(judge(302, 0, 0.5), Verdict::Again(Some(Duration::from_millis(4_375))));
    }

    #[test]
    fn a_post_ends_before_the_lease_does() {
        let at_most = Duration::from_secs(15);
        for (left, expected) in [(60_000, Some(15_000)), (15_000, Some(15_000)), (1_000, Some(1_000)), (999, None), (0, None)] {
            assert_eq!(post_time(Duration::from_millis(left), at_most), expected.map(Duration::from_millis), "{left}");
        }
    }

    #[test]
    fn a_replay_never_skips_what_is_kept_and_brings_back_who_lost_its_place() {
        let webhook = |position, reason: Option<Reason>| Webhook {
            id: WebhookId::new(),
            programme: ProgrammeId::new(),
            url: String::new(),
            kinds: Vec::new(),
            columns: Columns::None,
            state: if reason.is_some() { WebhookState::Disabled } else { WebhookState::Paused },
            reason,
            position,
            failing_since: None,
            version: 1,
            create_time: DateTime::UNIX_EPOCH,
        };
        let replayed = |mut webhook: Webhook, begin| {
            webhook.replay(begin);
            (webhook.state, webhook.reason, webhook.position)
        };
        assert_eq!(replayed(webhook(7, None), 9), (WebhookState::Paused, None, 7));
        assert_eq!(replayed(webhook(7, None), 3), (WebhookState::Paused, None, 3));
        let gone = Some(Reason::Gone);
        assert_eq!(replayed(webhook(7, gone), 9), (WebhookState::Disabled, gone, 7));
        assert_eq!(replayed(webhook(7, Some(Reason::PositionDropped)), 9), (WebhookState::Active, None, 9));
    }

    #[test]
    fn only_answers_of_success_take_an_event_and_gone_ends_it_all() {
        for status in [200, 204, 299] {
            assert_eq!(judge(status, 3, 0.5), Verdict::Delivered);
        }
        assert_eq!(judge(410, 0, 0.5), Verdict::Gone);
        for status in [0, 199, 300, 404, 429, 500] {
            assert!(matches!(judge(status, 0, 0.5), Verdict::Again(Some(_))), "{status}");
        }
    }

    #[test]
    fn five_days_are_long() {
        let since = DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
        assert!(!has_failed_for_long(since, since + TimeDelta::days(5) - TimeDelta::microseconds(1)));
        assert!(has_failed_for_long(since, since + TimeDelta::days(5)));
    }
}
