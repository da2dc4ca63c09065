//! What the log was told already: a leader looks at the world many times a second, and what fails at every look is news once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of one matter no more different words are told until it goes well again: messages may carry what changes each time.
const WORDS_MAX: usize = 4;

#[derive(Debug, Default)]
struct Matter {
    told: Vec<String>,
    untold: u64,
}

/// What has failed since it last went well, by matter. Matters are few: kinds of command, and steps of the open runs' plans.
#[derive(Debug, Default)]
pub struct News {
    matters: Mutex<BTreeMap<String, Matter>>,
}

impl News {
    fn matters(&self) -> MutexGuard<'_, BTreeMap<String, Matter>> {
        self.matters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It failed, for this reason. Whether that is to be told.
    pub fn is_news(&self, matter: &str, reason: &str) -> bool {
        let mut matters = self.matters();
        let matter = matters.entry(matter.to_owned()).or_default();
        let is_news = matter.told.len() < WORDS_MAX && matter.told.iter().all(|told| told != reason);
        if is_news {
            matter.told.push(reason.to_owned());
        } else {
            matter.untold = matter.untold.saturating_add(1);
        }
        is_news
    }

    /// It goes well. How many failures were not told, where it had failed.
    pub(super) fn goes_well(&self, matter: &str) -> Option<u64> {
        self.matters().remove(matter).map(|matter| matter.untold)
    }

    /// Another leadership begins: everything is news again.
    pub(super) fn forget(&self) {
        self.matters().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_news_once_until_it_goes_well() {
        let news = News::default();
        assert!(news.is_news("OpenRun", "no quorum"));
        assert!(!news.is_news("OpenRun", "no quorum"));
        assert!(news.is_news("Tell", "no quorum"));
        assert!(news.is_news("OpenRun", "no answer"));
        assert!(!news.is_news("OpenRun", "no quorum"));
        assert_eq!(news.goes_well("OpenRun"), Some(2));
        assert_eq!(news.goes_well("OpenRun"), None);
        assert!(news.is_news("OpenRun", "no quorum"));
        assert!(!news.is_news("Tell", "no quorum"));
        news.forget();
        assert!(news.is_news("Tell", "no quorum"));
    }

    #[test]
    fn words_that_change_each_time_are_bounded() {
        let news = News::default();
        let told = (0..1000).filter(|n| news.is_news("OpenRun", &format!("no answer after {n} ms"))).count();
        assert_eq!(told, WORDS_MAX);
        assert_eq!(news.goes_well("OpenRun"), Some(1000 - WORDS_MAX as u64));
    }
}
