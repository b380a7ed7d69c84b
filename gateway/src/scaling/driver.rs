//! What is said to a driver, and what it answers: see `docs/autoscaling.md`.

use controller::scaling::{Answer, Ask, Verb};
use serde::Deserialize;
use serde_json::json;
use world::program::{Program, Unanswered};

/// Of the words below; grows where an older driver would misunderstand them.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Told {
    nodes: Option<Vec<String>>,
    error: Option<String>,
}

/// Asks it. `server` is where agents reach this server.
pub(super) async fn ask(driver: &dyn Program, pool: &str, server: &str, ask: &Ask) -> Answer {
    match driver.ask(question(pool, server, ask)).await {
        Ok(text) => understood(&text, ask),
        Err(Unanswered::NotBegun(why)) => Answer::Refused(why),
        Err(Unanswered::Failed(why)) => Answer::Unknown(why),
    }
}

fn question(pool: &str, server: &str, ask: &Ask) -> String {
    let action = match ask.verb {
        Verb::Add => "add",
        Verb::Remove => "remove",
    };
    let question =
        json!({ "version": VERSION, "action": action, "pool": pool, "nodes": ask.nodes, "server": server });
    format!("{question}\n")
}

fn understood(text: &str, ask: &Ask) -> Answer {
    if text.trim().is_empty() {
        return Answer::Done(ask.nodes.clone());
    }
    match serde_json::from_str(text) {
        Ok(Told { error: Some(why), .. }) => Answer::Refused(why.trim().replace('\n', "; ")),
        Ok(Told { nodes, .. }) => Answer::Done(nodes.unwrap_or_else(|| ask.nodes.clone())),
        Err(error) => Answer::Unknown(format!("its answer is not the JSON it should be: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_and_understood_as_documented() {
        let ask = Ask { verb: Verb::Add, nodes: vec!["gpu-auto-7".into(), "gpu-auto-8".into()] };
        assert_eq!(
            question("gpu", "http://h:7420", &ask),
            "{\"action\":\"add\",\"nodes\":[\"gpu-auto-7\",\"gpu-auto-8\"],\"pool\":\"gpu\",\
             \"server\":\"http://h:7420\",\"version\":1}\n"
        );
        for (text, answer) in [
            ("", Answer::Done(ask.nodes.clone())),
            ("{}\n", Answer::Done(ask.nodes.clone())),
            ("{\"nodes\": [\"gpu-auto-7\"], \"took_s\": 3}", Answer::Done(vec!["gpu-auto-7".into()])),
            ("{\"error\": \"no quota\\nhere\"}", Answer::Refused("no quota; here".into())),
        ] {
            assert_eq!(understood(text, &ask), answer, "{text}");
        }
        for odd in ["started", "[]", "{\"nodes\": 2}"] {
            assert!(matches!(understood(odd, &ask), Answer::Unknown(_)), "{odd}");
        }
    }
}
