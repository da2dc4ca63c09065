//! How Route 53 spells names and texts: quoted strings, and `\ooo` in octal for what is not plain.

use crate::resolve::canonical_name;

/// A TXT value of several strings: `"one" "two"`. The strings are plain (no quote, no backslash).
pub(super) fn quote(strings: &[String]) -> String {
    strings.iter().map(|string| format!("\"{string}\"")).collect::<Vec<_>>().join(" ")
}

/// A TXT value's strings, joined. What is not UTF-8 is replaced; what is not quoted is taken as it stands.
pub(super) fn unquote(value: &str) -> String {
    if !value.starts_with('"') {
        return value.to_owned();
    }
    let mut text = Vec::new();
    let mut quoted = false;
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => {
                let (byte, used) = escaped(rest);
                text.push(byte);
                rest = &rest[used..];
            }
            _ if quoted => text.push(byte),
            _ => {}
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A name in the one spelling used for comparing.
pub(super) fn name(spelled: &str) -> String {
    let mut plain = Vec::new();
    let mut rest = spelled.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\' {
            let (byte, used) = escaped(rest);
            plain.push(byte);
            rest = &rest[used..];
        } else {
            plain.push(byte);
        }
    }
    canonical_name(&String::from_utf8_lossy(&plain))
}

/// The byte meant by what follows a backslash, and how many bytes that took.
fn escaped(rest: &[u8]) -> (u8, usize) {
    let octal = |byte: u8| (b'0'..=b'7').contains(&byte).then(|| u32::from(byte - b'0'));
    if let [a, b, c, ..] = rest
        && let (Some(a), Some(b), Some(c)) = (octal(*a), octal(*b), octal(*c))
        && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
    {
        return (byte, 3);
    }
    match rest.first() {
        Some(&byte) => (byte, 1),
        None => (b'\\', 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_read_as_they_were_meant() {
        for (value, text) in [
            ("\"hello\"", "hello"),
            ("\"he\" \"llo\"", "hello"),
            ("\"he\"\"llo\"", "hello"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#""\303\274""#, "ü"),
            (r#""a\"#, r"a\"),
            ("\"never closed", "never closed"),
            ("bare", "bare"),
            ("", ""),
        ] {
            assert_eq!(unquote(value), text, "{value}");
        }
    }

    #[test]
    fn names_are_read_as_they_were_meant() {
        assert_eq!(name("\\052.Demo.test."), "*.demo.test.");
        assert_eq!(name("_watchdog.demo.test"), "_watchdog.demo.test.");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(value in "\\PC*|[\"\\\\0-9a ]{0,20}") {
            let _ = (unquote(&value), name(&value));
        }

        #[test]
        fn what_is_quoted_is_read_back(text in "[ -!#-\\[\\]-~]{0,600}") {
            let strings: Vec<String> = text.as_bytes().chunks(255).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
            prop_assert_eq!(unquote(&quote(&strings)), text);
        }
    }
}
