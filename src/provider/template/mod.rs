//! Go templates in rule files.
//!
//! Owns the language of Go's `text/template` as far as rule files use it: text, actions, pipelines, variables, `if`,
//! `range`, `with`, `define`, `template`, `block`, comments and trim markers. A mistake is an error with its line; nothing
//! of a template ever reaches the configuration unexpanded. Work, output and nesting are bounded.
//! Never reads a file. Differences from Go are listed in `docs/templates.md`. Source: spec file-provider 5.
//! Read next: `parse.rs`, `execute.rs`, `function.rs`.

mod execute;
mod function;
mod parse;
mod text;
mod value;

use std::fmt;

/// Bytes that a template may produce.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Steps that one expansion may take: each node, loop turn and function call is one.
const STEPS_MAX: u64 = 10_000_000;

/// Nesting of actions, parentheses and calls of templates. Recursion in Rust follows it, so this bounds the stack.
const DEPTH_MAX: usize = 100;

/// Elements of one list, and bytes of one text, that a function may make.
const VALUE_SIZE_MAX: usize = 16 * 1024 * 1024;

/// What is wrong with a template, and in which line, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    pub line: usize,
    pub message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: template: {}", self.line, self.message)
    }
}

/// Expands a template.
///
/// # Errors
/// It cannot be parsed, a function fails, or a bound is passed.
pub fn render(text: &str) -> Result<String, TemplateError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    execute::run(&parse::parse(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, expected: &str) {
        let found = render(template).unwrap_or_else(|error| format!("error {error}"));
        assert_eq!(found, expected, "{template}");
    }

    #[test]
    fn text_and_actions() {
        check("plain { text } é", "plain { text } é");
        check("{{ . }}", "false");
        check(r#"a{{ "b" }}c"#, "abc");
        check("{{`raw \\n`}}", "raw \\n");
        check(r#"{{ "\"\u00e9\n\x41" }}"#, "\"é\nA");
        check("{{ 'a' }}", "97");
        check(
            "{{ 1 }} {{ -2 }} {{ 0x10 }} {{ 1.5 }} {{ true }}",
            "1 -2 16 1.5 true",
        );
        check("a {{- 1 -}} b", "a1b");
        check("a\n{{- /* gone\n{{ */ -}}\nb", "ab");
        check("a{{/* gone */}}b", "ab");
        check("{{\"é\"}}é{{\"é\"}}", "ééé");
        check("{{ print 1\n }}", "1");
    }

    #[test]
    fn control_flow() {
        check("{{ if false }}a{{ else if 0 }}b{{ else }}c{{ end }}", "c");
        check(
            r#"{{ if "" }}a{{ end }}{{ if . }}b{{ end }}{{ if not . }}c{{ end }}"#,
            "c",
        );
        check(
            "{{ range $i, $e := until 3 }}{{ $i }}={{ add $e 1 }};{{ end }}",
            "0=1;1=2;2=3;",
        );
        check("{{ range $e := until 2 }}{{ $e }}{{ . }}{{ end }}", "0011");
        check("{{ range list }}x{{ else }}empty{{ end }}", "empty");
        check(
            "{{ range until 5 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ if eq . 3 }}{{ break }}{{ end }}{{ . }}{{ end }}",
            "02",
        );
        check(
            r#"{{ range $k, $v := dict "b" 2 "a" 1 }}{{ $k }}{{ $v }}{{ end }}"#,
            "a1b2",
        );
        check(
            r#"{{ with "x" }}{{ . }}{{ $ }}{{ end }}{{ with "" }}a{{ else }}b{{ end }}"#,
            "xfalseb",
        );
        check(
            "{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ end }}{{ $x }}",
            "2",
        );
        check(
            "{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}",
            "1",
        );
        check(
            "{{ range $i, $_ := until 2 }}{{ range $j, $_ := until 2 }}{{ $i }}{{ $j }} {{ end }}{{ end }}",
            "00 01 10 11 ",
        );
    }

    #[test]
    fn templates_in_templates() {
        check(
            r#"{{ define "s" }}<{{ . }}>{{ end }}{{ template "s" 1 }}{{ template "s" "a" | upper }}"#,
            "<1><A>",
        );
        check(
            r#"{{ template "s" }}{{ define "s" }}<{{ . }}>{{ end }}"#,
            "<<no value>>",
        );
        check(r#"{{ block "b" 3 }}[{{ . }}]{{ end }}"#, "[3]");
        check(
            r#"{{ template "no" }}"#,
            "error 1: template: template \"no\" not defined",
        );
        check(
            r#"{{ define "s" }}{{ template "s" }}{{ end }}{{ template "s" }}"#,
            "error 1: template: nested deeper than 100",
        );
    }

    #[test]
    fn pipelines_and_fields() {
        check(r#"{{ "A-b" | tolower | upper | lower }}"#, "a-b");
        check(r#"{{ (dict "a" (dict "b" 5)).a.b }}"#, "5");
        check(
            r#"{{ $d := dict "a" 1 }}{{ $d.a }}{{ $d.missing }}"#,
            "1<no value>",
        );
        check(r#"{{ with dict "a" 1 }}{{ .a }}{{ end }}"#, "1");
        check(
            r#"{{ printf "%s-%d-%v-%q-%03d-%x-%t-%%" "a" 1 true "q" 7 255 false }}"#,
            r#"a-1-true-"q"-007-ff-false-%"#,
        );
        check(
            r#"{{ printf "%5s|%-5s|%.2f" "a" "b" 1.234 }}"#,
            "    a|b    |1.23",
        );
        check(r#"{{ printf "%d" "a" }}"#, "%!d(string=a)");
        check(
            r#"{{ print 1 2 "a" "b" 3 }}{{ println "x" 1 }}"#,
            "1 2ab3x 1\n",
        );
    }

    #[test]
    fn builtins() {
        check("{{ and 1 0 }}{{ or 0 2 }}{{ not 1 }}", "02false");
        check(
            r#"{{ eq 1 2 1 }}{{ ne "a" "b" }}{{ lt 1 2 }}{{ le 2 2 }}{{ gt "b" "a" }}{{ ge 1 2 }}"#,
            "truetruetruetruetruefalse",
        );
        check(
            r#"{{ index (list "a" "b") 1 }}{{ index (dict "k" "v") "k" }}{{ len "abc" }}{{ len (until 4) }}"#,
            "bv34",
        );
        check(
            r#"{{ slice "abcdef" 1 3 }}{{ html "<a&'\">" }}{{ urlquery "a b&é" }}"#,
            "bc&lt;a&amp;&#39;&#34;&gt;a+b%26%C3%A9",
        );
        check(r#"{{ js "it's" }}"#, r"it\'s");
        check(
            r#"{{ eq 1 "1" }}"#,
            "error 1: template: function \"eq\": int and string cannot be compared",
        );
        check(
            "{{ index (list 1) 3 }}",
            "error 1: template: function \"index\": index 3 is out of range",
        );
    }

    #[test]
    fn functions_of_traefik_and_sprig() {
        check(r#"{{ normalize "p.test/é--x." }}"#, "p-test-é-x");
        check(r#"{{ range split "," "a,b" }}<{{ . }}>{{ end }}"#, "<a><b>");
        check(
            "{{ untilStep 0 6 2 }}{{ untilStep 3 0 -1 }}{{ until -2 }}",
            "[0 2 4][3 2 1][0 -1]",
        );
        check(
            "{{ add 1 2 3 }} {{ sub 5 2 }} {{ mul 2 3 4 }} {{ div 7 2 }} {{ mod 7 4 }} {{ max 1 5 3 }} {{ min 4 2 }} {{ add1 4 }}",
            "6 3 24 3 3 5 2 5",
        );
        check(
            "{{ div 1 0 }}",
            "error 1: template: function \"div\": division by zero",
        );
        check(
            r#"{{ upper "é" }}{{ title "ab cd" }}{{ trim "  a " }}{{ trimAll "$" "$5$" }}{{ trimPrefix "a" "ab" }}{{ trimSuffix "b" "ab" }}"#,
            "ÉAb Cda5ba",
        );
        check(
            r#"{{ replace "a" "b" "aac" }}{{ contains "a" "cab" }}{{ hasPrefix "c" "cab" }}{{ hasSuffix "c" "cab" }}"#,
            "bbctruetruefalse",
        );
        check(
            r#"{{ repeat 3 "ab" }}{{ substr 1 3 "abcd" }}{{ nospace "a b" }}{{ indent 2 "a\nb" }}{{ nindent 1 "a" }}"#,
            "abababbcab  a\n  b\n a",
        );
        check(
            r#"{{ quote "a\"" 1 }}{{ squote "a" }}{{ cat "a" 1 }}{{ join "-" (list "a" 1) }}{{ splitList "," "a,b" }}"#,
            "\"a\\\"\" \"1\"'a'a 1a-1[a b]",
        );
        check(
            r#"{{ first (list 1 2) }}{{ last (list 1 2) }}{{ rest (list 1 2 3) }}{{ initial (list 1 2 3) }}"#,
            "12[2 3][1 2]",
        );
        check(
            r#"{{ append (list 1) 2 }}{{ prepend (list 1) 0 }}{{ uniq (list 1 1 2) }}{{ has 1 (list 1) }}{{ without (list 1 2) 1 }}"#,
            "[1 2][0 1][1 2]true[2]",
        );
        check(
            r#"{{ $d := dict "a" 1 }}{{ $_ := set $d "b" 2 }}{{ get $d "b" }}{{ hasKey $d "b" }}{{ keys $d }}{{ unset $d "a" }}"#,
            "2true[a b]map[b:2]",
        );
        check(
            r#"{{ pluck "a" (dict "a" 1) (dict "a" 2) (dict) }}{{ values (dict "a" 1) }}"#,
            "[1 2][1]",
        );
        check(
            r#"{{ default "x" "" }}{{ "y" | default "x" }}{{ default "z" }}{{ empty 0 }}{{ coalesce 0 "" "c" }}{{ ternary "t" "f" true }}"#,
            "xyztruect",
        );
        check(
            r#"{{ int "7" }}{{ int64 2.9 }}{{ float64 "1.5" }}{{ toString 3 }}{{ atoi "12" }}{{ atoi "x" }}"#,
            "721.53120",
        );
        check(
            r#"{{ b64enc "héllo" }}{{ b64dec "aGk=" }}{{ b64dec (b64enc "abc") }}"#,
            "aMOpbGxvhiabc",
        );
        check(
            r#"{{ regexMatch "^a.c$" "abc" }}{{ regexFind "[0-9]+" "a12" }}{{ regexReplaceAll "a(x*)b" "-ab-axxb-" "${1}W" }}"#,
            "true12-W-xxW-",
        );
        check(
            r#"{{ fail "no good" }}"#,
            "error 1: template: function \"fail\": no good",
        );
        check(
            r#"{{ env "COREWAY_SURELY_NOT_SET" }}{{ expandenv "a$COREWAY_SURELY_NOT_SET-b" }}"#,
            "a-b",
        );
        check(
            r#"{{ toJson (dict "a" (list 1 "b")) }}"#,
            r#"{"a":[1,"b"]}"#,
        );
        check(
            r#"{{ trunc 2 "abc" }} {{ sortAlpha (list "b" "a") }}"#,
            "ab [a b]",
        );
        check(r#"{{ len (date "2006-01-02" now) }}"#, "10");
    }

    #[test]
    fn mistakes_name_their_line() {
        check(
            "a\nb\n{{ nofunc 1 }}",
            "error 3: template: function \"nofunc\" not defined",
        );
        check("{{ if true }}\n", "error 1: template: if without end");
        check("a\n{{ end }}", "error 2: template: unexpected end");
        check("\n{{ else }}", "error 2: template: unexpected else");
        check(
            "\n\n{{ \"a }}\n",
            "error 3: template: unterminated quoted string",
        );
        check("x\n{{ 1", "error 2: template: unclosed action");
        check("{{ }}", "error 1: template: missing value in an action");
        check("{{ (1 }}", "error 1: template: unclosed left parenthesis");
        check("{{ $x }}", "error 1: template: undefined variable \"$x\"");
        check("{{/* a }}", "error 1: template: unclosed comment");
        check("{{ break }}", "error 1: template: break outside of range");
        check(
            "{{ 1 | 2 }}",
            "error 1: template: a value that is no function stands in a pipeline after the first",
        );
        check(
            "{{ \"a\"\n}}\n{{ range 5 }}{{ end }}",
            "error 3: template: range cannot go over int",
        );
        check(
            "{{ upper }}",
            "error 1: template: function \"upper\": expected 1 argument, got 0",
        );
        check("{{ 1é }}", "error 1: template: bad number \"1é\"");
        check("{{ é }}", "error 1: template: function \"é\" not defined");
        check("{{ # }}", "error 1: template: unexpected '#' in an action");
        check(
            r#"{{ "a".b }}"#,
            "error 1: template: unexpected '.' in an action",
        );
    }

    #[test]
    fn work_and_output_are_bounded() {
        check(
            "{{ range until 10000 }}{{ range until 10000 }}{{ end }}{{ end }}",
            "error 1: template: takes more than 10000000 steps",
        );
        check(
            "{{ $s := repeat 16000000 \"x\" }}{{ $s }}{{ $s }}{{ $s }}{{ $s }}{{ $s }}",
            "error 1: template: produces more than 67108864 bytes",
        );
        check(
            "{{ until 100000000 }}",
            "error 1: template: function \"until\": would make more than 16777216 elements or bytes",
        );
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
        check(&deep, "error 1: template: nested deeper than 100");
        let deep = format!("{}{}", "{{ if 1 }}".repeat(5000), "{{ end }}".repeat(5000));
        check(&deep, "error 1: template: nested deeper than 100");
    }
}
