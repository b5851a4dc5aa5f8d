//! Personal fields in answers: who may see them, and what others see instead.

/// Whether an answer shows what is personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Whole,
    Masked,
}

tokio::task_local! {
    static SIGHT: Sight;
}

/// Runs a call whose answer, a stream too, is seen so.
pub async fn seen<F: Future>(sight: Sight, call: F) -> F::Output {
    SIGHT.scope(sight, call).await
}

/// How the present call's answer is seen; masked where nobody has said.
pub fn sight() -> Sight {
    SIGHT.try_with(|sight| *sight).unwrap_or(Sight::Masked)
}

/// A field that may hold something personal.
pub trait Personal {
    fn clear(&mut self);
    fn mask(&mut self);
}

impl Personal for String {
    fn clear(&mut self) {
        Self::clear(self);
    }

    fn mask(&mut self) {
        *self = mask(self);
    }
}

impl Personal for Vec<String> {
    fn clear(&mut self) {
        Self::clear(self);
    }

    fn mask(&mut self) {
        self.iter_mut().for_each(Personal::mask);
    }
}

/// Characters of a phone number that its mask shows: the country, mostly, and what tells two numbers of one person apart.
const PHONE_HEAD: usize = 3;
const PHONE_TAIL: usize = 2;

/// What is shown of a text instead: that it is there, and by its shape of which kind it is.
pub fn mask(text: &str) -> String {
    if let Some((local, domain)) = text.split_once('@')
        && let Some((host, last)) = domain.rsplit_once('.')
        && let (Some(local), Some(host)) = (local.chars().next(), host.chars().next())
    {
        return format!("{local}***@{host}***.{last}");
    }
    let digits = text.strip_prefix('+').unwrap_or_default();
    if digits.len() >= 7 && digits.bytes().all(|b| b.is_ascii_digit()) {
        let hidden = "*".repeat(text.len() - PHONE_HEAD - PHONE_TAIL);
        return format!("{}{hidden}{}", &text[..PHONE_HEAD], &text[text.len() - PHONE_TAIL..]);
    }
    let mut rest = text.chars();
    match (rest.next(), rest.next()) {
        (None, _) => String::new(),
        (Some(_), None) => "*".to_owned(),
        (Some(first), Some(_)) => format!("{first}*"),
    }
}

/// Whether a text looks as a mask does: what somebody writes back who was shown no more.
pub fn is_mask(text: &str) -> bool {
    let is_phone = || {
        let digits = text.strip_prefix('+').unwrap_or_default().as_bytes();
        let (head, rest) = digits.split_at(digits.len().min(PHONE_HEAD - 1));
        let (hidden, tail) = rest.split_at(rest.len().saturating_sub(PHONE_TAIL));
        let shown = [head, tail].concat();
        !hidden.is_empty() && hidden.iter().all(|b| *b == b'*') && shown.iter().all(u8::is_ascii_digit)
    };
    !text.is_empty() && (mask(text) == text || is_phone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_says_that_something_is_there_and_of_which_kind() {
        for (text, expected) in [
            ("", ""),
            ("张", "*"),
            ("张三", "张*"),
            ("Lin Xiaomei", "L*"),
            ("lin.xiaomei@mail.example.com", "l***@m***.com"),
            ("林@例子.公司", "林***@例***.公司"),
            ("+8613800138000", "+86*********00"),
            ("+1234567", "+12***67"),
            ("+123456", "+*"),
            ("lin@", "l*"),
            ("@example.com", "@*"),
            ("a@b", "a*"),
            ("a@.com", "a*"),
        ] {
            assert_eq!(mask(text), expected, "{text}");
            assert_eq!((is_mask(text), is_mask(expected)), (false, !expected.is_empty()), "{text}");
        }
        for text in ["A**", "*张", "l***@mail.example.com", "+86*138*00138", "+", "+1", "+123", "a+86***00"] {
            assert!(!is_mask(text), "{text}");
        }
    }

    #[tokio::test]
    async fn what_nobody_has_allowed_is_masked() {
        assert_eq!(sight(), Sight::Masked);
        assert_eq!(seen(Sight::Whole, async { sight() }).await, Sight::Whole);
    }
}
