//! The diagnosis of a device as it is stored and shown.

use sag_southbound::{self as southbound, DiagnosisItem, DiagnosisText, wire_field};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Diagnosis {
    pub diagnose_id: String,
    pub instance_id: String,
    #[serde(rename = "SN")]
    pub sn: String,
    #[serde(rename = "UId")]
    pub uid: i64,
    pub box_type: String,
    #[serde(deserialize_with = "wire_field", skip_serializing_if = "Option::is_none")]
    pub box_version: Option<String>,
    #[serde(deserialize_with = "wire_field", skip_serializing_if = "Option::is_none")]
    pub monitor_version: Option<String>,
    pub state: String,
    pub percent: i64,
    /// Milliseconds since 1970, as all times here.
    pub start_time: i64,
    pub end_time: i64,
    pub total_number: i64,
    pub finished_number: i64,
    pub user_level: String,
    pub store_type: String,
    #[serde(rename = "ReportSLSSuccess")]
    pub report_sls_success: i64,
    pub statistics: Statistics,
    pub details: Vec<Details>,
    pub level: Levels,
}

/// How many of the checks came out how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Statistics {
    pub total: i64,
    pub error: i64,
    pub warning: i64,
    pub info: i64,
}

/// The checks of one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Details {
    /// `config`, `biz` or `internet`.
    pub r#type: String,
    pub items: Vec<Item>,
    pub statistics: Statistics,
}

/// One check, in both languages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Item {
    pub r#type: String,
    pub item_name: String,
    /// `error` or `info`.
    pub level: String,
    pub start_time: i64,
    pub end_time: i64,
    #[serde(rename = "EN")]
    pub en: ItemText,
    #[serde(rename = "CN")]
    pub cn: ItemText,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ItemText {
    pub item_name: String,
    pub item_type: String,
    pub item_level: String,
    pub details: Vec<String>,
    pub advice: Vec<String>,
}

/// The worst result of each group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Levels {
    pub biz: String,
    pub configuration: String,
    pub total: String,
}

/// Words of the documents for how far a diagnosis is (lines 10376 to 10386 of document 000).
pub const PROCESSING: &str = "processing";
pub const FINISHED: &str = "finished";
pub const FAILED: &str = "failed";

/// How long a device has for its measurements.
pub const TIMEOUT_MS: i64 = 60_000;

/// The groups of checks, and their names in English and Chinese.
const GROUPS: [(&str, [&str; 2]); 3] =
    [("config", ["Config", "配置"]), ("biz", ["Service", "业务"]), ("internet", ["Internet", "公网"])];

/// Levels, from the best, with their names.
const LEVELS: [(&str, [&str; 2]); 3] =
    [("info", ["INFO", "正常"]), ("warning", ["WARNING", "警告"]), ("error", ["ERROR", "严重"])];

/// Checks of a device that are kept, and lines and characters of each.
const MAX_ITEMS: usize = 64;
const MAX_LINES: usize = 32;
const MAX_TEXT: usize = 500;

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// The place of a word; words of newer devices count as the last one.
fn place(table: &[(&str, [&str; 2])], word: &str) -> usize {
    table.iter().position(|(known, _)| *known == word).unwrap_or(table.len() - 1)
}

impl From<DiagnosisItem> for Item {
    fn from(of: DiagnosisItem) -> Item {
        let (group, level) = (GROUPS[place(&GROUPS, &of.kind)], LEVELS[place(&LEVELS, &of.level)]);
        let text = |text: DiagnosisText, n: usize| ItemText {
            item_name: short(&text.name),
            item_type: group.1[n].to_owned(),
            item_level: level.1[n].to_owned(),
            details: text.details.iter().take(MAX_LINES).map(|line| short(line)).collect(),
            advice: text.advice.iter().take(MAX_LINES).map(|line| short(line)).collect(),
        };
        Item {
            r#type: group.0.to_owned(),
            item_name: short(&of.name),
            level: level.0.to_owned(),
            start_time: of.start_time,
            end_time: of.end_time,
            en: text(of.en, 0),
            cn: text(of.cn, 1),
        }
    }
}

fn statistics<'a>(items: impl Iterator<Item = &'a Item>) -> Statistics {
    items.fold(Statistics::default(), |mut sum, item| {
        sum.total += 1;
        match item.level.as_str() {
            "error" => sum.error += 1,
            "warning" => sum.warning += 1,
            _ => sum.info += 1,
        }
        sum
    })
}

fn worst(of: &Statistics) -> String {
    match of {
        Statistics { error: 1.., .. } => "error",
        Statistics { warning: 1.., .. } => "warning",
        _ => "info",
    }
    .to_owned()
}

impl Diagnosis {
    /// Adds checks to their groups, and counts.
    pub fn add(&mut self, items: impl IntoIterator<Item = Item>) {
        let old = std::mem::take(&mut self.details).into_iter().flat_map(|d| d.items);
        let all: Vec<Item> = old.chain(items).collect();
        let group = |name: &str| Details {
            r#type: name.to_owned(),
            items: all.iter().filter(|i| i.r#type == name).cloned().collect(),
            statistics: statistics(all.iter().filter(|i| i.r#type == name)),
        };
        self.details = GROUPS.iter().map(|(name, _)| group(name)).collect();
        self.statistics = statistics(all.iter());
        self.finished_number = self.statistics.total;
        self.total_number = self.statistics.total;
        self.level = Levels {
            biz: worst(&self.details[1].statistics),
            configuration: worst(&self.details[0].statistics),
            total: worst(&self.statistics),
        };
    }

    /// There is nothing to wait for any more.
    pub fn finish(&mut self, now: i64) {
        FINISHED.clone_into(&mut self.state);
        (self.percent, self.end_time) = (100, now);
    }

    /// Takes what a device has measured for this diagnosis; whether it was news.
    pub fn complete(&mut self, measured: &southbound::Diagnosis, now: i64) -> bool {
        if self.state != PROCESSING || self.diagnose_id != measured.id {
            return false;
        }
        self.add(measured.items.iter().take(MAX_ITEMS).cloned().map(Item::from));
        self.finish(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: &str, level: &str) -> DiagnosisItem {
        let text =
            DiagnosisText { name: "x".repeat(9999), details: vec!["y".into(); 99], ..Default::default() };
        let (kind, level) = (kind.to_owned(), level.to_owned());
        DiagnosisItem { kind, level, en: text.clone(), cn: text, ..DiagnosisItem::default() }
    }

    #[test]
    fn a_diagnosis_ends_with_what_was_measured_for_it() {
        let begun = |state: &str| {
            let mut d =
                Diagnosis { diagnose_id: "dia-1".into(), state: state.into(), ..Diagnosis::default() };
            d.add([Item::from(item("config", "info"))]);
            d
        };
        let measured = |id: &str| southbound::Diagnosis {
            id: id.to_owned(),
            items: vec![item("internet", "error"), item("biz", "warning"), item("new", "new")],
        };
        let mut d = begun(PROCESSING);
        assert_eq!((d.statistics.total, d.percent, d.level.total.as_str()), (1, 0, "info"));
        assert!(!d.complete(&measured("dia-0"), 7), "another one");
        assert!(d.complete(&measured("dia-1"), 7));
        assert!(!d.complete(&measured("dia-1"), 8), "once");
        assert_eq!((d.state.as_str(), d.percent, d.end_time), (FINISHED, 100, 7));
        assert_eq!(d.statistics, Statistics { total: 4, error: 2, warning: 1, info: 1 });
        assert_eq!((d.level.biz.as_str(), d.level.configuration.as_str()), ("warning", "info"));
        let internet = &d.details[2];
        assert_eq!((internet.items.len(), internet.statistics.error), (2, 2), "unknown words are the worst");
        let text = &internet.items[0].cn;
        assert_eq!((text.item_level.as_str(), text.item_type.as_str()), ("严重", "公网"));
        assert_eq!((text.item_name.len(), text.details.len()), (MAX_TEXT, MAX_LINES));
        assert!(!begun(FAILED).complete(&measured("dia-1"), 7), "it came too late");
    }

    #[test]
    fn a_device_cannot_make_it_large() {
        let mut d = Diagnosis { state: PROCESSING.into(), ..Diagnosis::default() };
        d.complete(&southbound::Diagnosis { id: String::new(), items: vec![item("biz", "info"); 9999] }, 1);
        assert_eq!(d.statistics.total, MAX_ITEMS as i64);
    }
}
