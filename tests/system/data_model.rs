//! `docs/DATA_MODEL.md` against what a running server shows its users, both ways.

use std::collections::BTreeMap;

use crate::common::Site;

#[path = "../common/data_model.rs"]
mod document;

#[test]
fn every_column_that_users_see_is_documented_and_no_other() {
    let site = Site::serving();
    let patient = site.patient();
    let token = site.clinician("nora", &[&patient]);
    let sql = "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns \
               WHERE table_schema = 'public' ORDER BY table_name, ordinal_position";
    let mut shown: BTreeMap<String, document::Columns> = BTreeMap::new();
    for row in site.psql("nora", &token, sql).unwrap() {
        let [table, column, kind, null] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let kind = match null {
            "YES" => format!("{kind}?"),
            _ => kind.to_owned(),
        };
        let columns = shown.entry(table.to_owned()).or_default();
        columns.push((column.to_owned(), kind));
    }
    assert_eq!(shown, document::tables("SQL"));
}
