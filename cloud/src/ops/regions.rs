//! Regions.

use super::cx::Cx;
use crate::api::{request, response};
use crate::domain::regions::REGIONS;
use crate::error::Result;

pub async fn describe(cx: &mut Cx, request: request::DescribeRegions) -> Result<response::DescribeRegions> {
    let language = match request.accept_language.as_str() {
        "en-US" => 1,
        "ja" => 2,
        _ => 0,
    };
    let rows = REGIONS.iter().map(|(id, names)| response::describe_regions::Region {
        local_name: names[language].to_owned(),
        // All regions are served here: a client that goes where it is told to must not leave.
        region_endpoint: cx.host.clone(),
        region_id: (*id).to_owned(),
    });
    Ok(response::DescribeRegions { regions: rows.collect() })
}
