//! Regions.

/// Where things are if a request does not say it.
pub const DEFAULT: &str = "cn-shanghai";

/// Identifier, and the names in Chinese, English and Japanese.
pub const REGIONS: [(&str, [&str; 3]); 14] = [
    ("cn-shanghai", ["华东2（上海）", "China (Shanghai)", "中国 (上海)"]),
    ("cn-hangzhou", ["华东1（杭州）", "China (Hangzhou)", "中国 (杭州)"]),
    ("cn-beijing", ["华北2（北京）", "China (Beijing)", "中国 (北京)"]),
    ("cn-shenzhen", ["华南1（深圳）", "China (Shenzhen)", "中国 (深セン)"]),
    ("cn-hongkong", ["中国香港", "China (Hong Kong)", "中国 (香港)"]),
    ("ap-southeast-1", ["新加坡", "Singapore", "シンガポール"]),
    ("ap-southeast-3", ["马来西亚（吉隆坡）", "Malaysia (Kuala Lumpur)", "マレーシア (クアラルンプール)"]),
    ("ap-southeast-5", ["印度尼西亚（雅加达）", "Indonesia (Jakarta)", "インドネシア (ジャカルタ)"]),
    ("ap-northeast-1", ["日本（东京）", "Japan (Tokyo)", "日本 (東京)"]),
    ("eu-central-1", ["德国（法兰克福）", "Germany (Frankfurt)", "ドイツ (フランクフルト)"]),
    ("eu-west-1", ["英国（伦敦）", "UK (London)", "英国 (ロンドン)"]),
    ("us-east-1", ["美国（弗吉尼亚）", "US (Virginia)", "米国 (バージニア)"]),
    ("us-west-1", ["美国（硅谷）", "US (Silicon Valley)", "米国 (シリコンバレー)"]),
    ("cn-zhangjiakou-spe", ["张北SPE", "Zhangjiakou SPE", "張家口 SPE"]),
];

pub fn known(region: &str) -> bool {
    REGIONS.iter().any(|(id, _)| *id == region)
}
