//! Bodies for chats: a JSON document whose strings hold placeholders, `{{summary}}` among them. Judged when the configuration
//! is, so that a misspelt placeholder is told before a page is due; filled after parsing, so that no text can break out of it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// What may stand between `{{` and `}}`.
pub const PLACEHOLDERS: &[&str] =
    &["cluster", "key", "event", "severity", "action", "summary", "group", "run", "at", "details", "contacts", "text"];
/// A template is no larger, bytes.
const BYTES_MAX: usize = 16 * 1024;
/// A placeholder's value is cut to this, characters: Telegram takes 4096 in a message.
const VALUE_MAX: usize = 3500;

/// A judged template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Template(Value);

impl Template {
    /// Telegram's `sendMessage` to this chat.
    pub fn telegram(chat_id: &str) -> Self {
        Self(serde_json::json!({ "chat_id": chat_id, "text": "{{text}}", "disable_web_page_preview": true }))
    }

    /// An incoming webhook of Slack, Mattermost or Rocket.Chat.
    pub fn slack() -> Self {
        Self(serde_json::json!({ "text": "{{text}}" }))
    }

    /// From JSON.
    ///
    /// # Errors
    /// What is wrong with it, and what would do.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("has {} bytes, more than {BYTES_MAX}", text.len()));
        }
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON ({error})"))?;
        if !value.is_object() {
            return Err("is not a JSON object".to_owned());
        }
        let mut used = 0;
        judge(&value, &mut used)?;
        if used == 0 {
            return Err(format!(
                "says nothing of the page: put {{{{text}}}} or another of {PLACEHOLDERS:?} into a string"
            ));
        }
        Ok(Self(value))
    }

    /// The document with its placeholders filled. What has no value is empty.
    pub fn fill(&self, values: &BTreeMap<&'static str, String>) -> Value {
        filled(&self.0, values)
    }
}

fn judge(value: &Value, used: &mut usize) -> Result<(), String> {
    match value {
        Value::String(text) => {
            for word in placeholders(text)? {
                if !PLACEHOLDERS.contains(&word) {
                    return Err(format!("there is no {{{{{word}}}}}: there are {PLACEHOLDERS:?}"));
                }
                *used += 1;
            }
            Ok(())
        }
        Value::Array(all) => all.iter().try_for_each(|one| judge(one, used)),
        Value::Object(fields) => {
            if let Some(key) = fields.keys().find(|key| key.contains("{{")) {
                return Err(format!("{key:?}: placeholders stand in values, not in names"));
            }
            fields.values().try_for_each(|one| judge(one, used))
        }
        _ => Ok(()),
    }
}

/// The words between `{{` and `}}`.
fn placeholders(text: &str) -> Result<Vec<&str>, String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        let inside = &rest[open + 2..];
        let close = inside.find("}}").ok_or_else(|| "has {{ without }}".to_owned())?;
        words.push(inside[..close].trim());
        rest = &inside[close + 2..];
    }
    Ok(words)
}

fn filled(value: &Value, values: &BTreeMap<&'static str, String>) -> Value {
    match value {
        Value::String(text) => Value::String(fill_text(text, values)),
        Value::Array(all) => all.iter().map(|one| filled(one, values)).collect(),
        Value::Object(fields) => fields.iter().map(|(key, one)| (key.clone(), filled(one, values))).collect(),
        other => other.clone(),
    }
}

/// One pass: what a value holds is never taken for a placeholder.
fn fill_text(text: &str, values: &BTreeMap<&'static str, String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, inside)) = rest.split_once("{{") {
        let Some((word, after)) = inside.split_once("}}") else { break };
        out.push_str(before);
        let value = values.get(word.trim()).map_or("", String::as_str);
        out.extend(value.chars().take(VALUE_MAX));
        if value.chars().count() > VALUE_MAX {
            out.push('…');
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelt_is_told_before_a_page_is_due() {
        for (text, phrase) in [
            ("", "is not JSON"),
            ("[]", "is not a JSON object"),
            ("{\"text\": \"hello\"}", "says nothing of the page"),
            ("{\"text\": \"{{sumary}}\"}", "there is no {{sumary}}"),
            ("{\"text\": \"{{summary\"}", "{{ without }}"),
            ("{\"{{key}}\": \"{{summary}}\"}", "not in names"),
        ] {
            assert!(Template::parse(text).unwrap_err().contains(phrase), "{text}: {:?}", Template::parse(text));
        }
        assert!(Template::parse(&format!("{{\"t\": \"{}\"}}", "x".repeat(20_000))).unwrap_err().contains("bytes"));
    }

    #[test]
    fn what_a_value_says_stays_a_value() {
        let template = Template::parse(r#"{"a": ["{{ summary }}!", 5], "b": {"c": "{{event}}/{{group}}"}}"#).unwrap();
        let values = BTreeMap::from([("summary", "\"}, {{event}} \\".to_owned()), ("event", "E".to_owned())]);
        let filled = template.fill(&values);
        assert_eq!(filled, serde_json::json!({"a": ["\"}, {{event}} \\!", 5], "b": {"c": "E/"}}));
        let long = Template::slack().fill(&BTreeMap::from([("text", "x".repeat(9000))]));
        assert_eq!(long["text"].as_str().unwrap().chars().count(), VALUE_MAX + 1);
    }
}
