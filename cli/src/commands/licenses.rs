//! `drumline licenses`: how many there are, and how many are held.

use super::{Outcome, done};
use crate::{
    args::{Format, LicensesArgs},
    client::Client,
    output::{self, Table, json},
};
use proto::v1::LicensesRequest;

pub(super) async fn run(client: Client, args: LicensesArgs) -> Outcome {
    let licenses = client.licenses(LicensesRequest {}).await?.licenses;
    match args.format.format {
        Format::Json => output::json(&licenses.iter().map(json::license).collect())?,
        Format::Name => {
            output::text(&licenses.iter().map(|license| format!("{}\n", license.name)).collect::<String>())?;
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["LICENSE", "TOTAL", "USED", "FREE"]);
            for license in &licenses {
                table.row(vec![
                    license.name.clone(),
                    license.total.to_string(),
                    license.used.to_string(),
                    license.total.saturating_sub(license.used).to_string(),
                ]);
            }
            table.print("no licenses; a server's file names them under [licenses]")?;
        }
    }
    done()
}
