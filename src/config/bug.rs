//! What `coreway bug` prints: a template for a report, with the configuration made anonymous. Spec static-config 2.
//!
//! Never sends anything to anybody. Read next: `export.rs` (what is left out).

use super::load::Loaded;
use super::{export, version};

/// The template. Every text that an operator chose is `xxxx` in it, except words of a closed set.
pub fn text(loaded: &Loaded) -> String {
    let configuration = export::anonymous_json(&loaded.global);
    format!(
        "Please file a new issue using this template:\n\n\
         ### What did you do?\n\n\n\
         ### What did you expect to see?\n\n\n\
         ### What did you see instead?\n\n\n\
         ### Output of `coreway version`\n\n```\n{}```\n\n\
         ### Configuration, with what is private taken out\n\n```json\n{configuration:#}\n```\n\n\
         ### The log, with `--logLevel=DEBUG` if you can\n\n```\n\n```\n",
        version::text()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn nothing_private_is_in_a_report() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.toml");
        std::fs::write(
            &path,
            "logLevel = 'INFO'\n[entryPoints.http]\naddress = '10.1.2.3:80'\n[entryPoints.http.auth.basic]\n\
             users = ['anna:hash']\n[consul]\nendpoint = 'store.example:8500'\npassword = 'geheim'\n[consul.tls]\nca = '/ca.pem'\n",
        )
        .expect("written");
        let arguments = ["bug".into(), format!("-c{}", path.display()).into()];
        let text = text(&load(&arguments, &|_| None).expect("usable"));
        for private in ["10.1.2.3", "anna", "hash", "example", "geheim", "ca.pem"] {
            assert!(!text.contains(private), "{private} in {text}");
        }
        assert!(text.contains("\"logLevel\": \"INFO\""), "{text}");
        assert!(text.contains("\"maxIdleConnsPerHost\": 200"), "{text}");
    }
}
