//! What bars a member from getting anything, whatever it fits: it is suspended, or withdrew a consent that the thing needs.

use super::{reserve_draw::DrawKind, resource_kind::ResourceKind};
use koc_chassis::members::{Purpose, Standing};

/// Why nothing is handed out to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    Suspended,
    /// It withdrew its consent for this purpose.
    Withdrew(Purpose),
}

/// What bars a member from a thing of a kind: who gets it takes part, and who pays to spread its content uses that.
pub fn from_kind(kind: ResourceKind, standing: &Standing) -> Option<Barred> {
    match kind {
        ResourceKind::PaidBoost => bars(standing, &[Purpose::Participation, Purpose::ContentUse]),
        _ => bars(standing, &[Purpose::Participation]),
    }
}

/// What bars a member from a draw on the reserve for it.
pub fn from_draw(kind: DrawKind, standing: &Standing) -> Option<Barred> {
    match kind {
        DrawKind::ViralBoost => bars(standing, &[Purpose::ContentUse]),
        DrawKind::PopUpEvent => bars(standing, &[Purpose::Participation]),
        DrawKind::Other => bars(standing, &[]),
    }
}

fn bars(standing: &Standing, needed: &[Purpose]) -> Option<Barred> {
    if standing.suspended {
        return Some(Barred::Suspended);
    }
    needed.iter().copied().find(|purpose| standing.withdrew(*purpose)).map(Barred::Withdrew)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrew(purpose: Purpose) -> Standing {
        Standing::new(false, vec![purpose.name().to_owned()])
    }

    #[test]
    fn who_is_suspended_gets_nothing_and_what_was_withdrawn_bars_what_needs_it() {
        for kind in ResourceKind::ALL.iter().copied() {
            assert_eq!(from_kind(kind, &Standing::new(true, Vec::new())), Some(Barred::Suspended));
            for purpose in Purpose::ALL {
                let needed =
                    purpose == Purpose::Participation || (purpose == Purpose::ContentUse && kind == ResourceKind::PaidBoost);
                assert_eq!(from_kind(kind, &withdrew(purpose)), needed.then_some(Barred::Withdrew(purpose)), "{kind:?}");
            }
        }
    }

    #[test]
    fn content_that_may_not_be_used_is_not_spread() {
        let content = withdrew(Purpose::ContentUse);
        assert_eq!(from_draw(DrawKind::ViralBoost, &content), Some(Barred::Withdrew(Purpose::ContentUse)));
        assert_eq!(from_draw(DrawKind::PopUpEvent, &content), None);
        let participation = withdrew(Purpose::Participation);
        assert_eq!(from_draw(DrawKind::PopUpEvent, &participation), Some(Barred::Withdrew(Purpose::Participation)));
        assert_eq!(from_draw(DrawKind::ViralBoost, &participation), None);
        assert_eq!(from_draw(DrawKind::Other, &Standing::new(true, Vec::new())), Some(Barred::Suspended));
    }
}
