use std::collections::HashMap;

use super::super::from_text;

type Case = (&'static str, &'static [(&'static str, &'static str)]);

/// Files, and what `godotenv.Unmarshal` of version 1.5.1 made of each.
const AS_GODOTENV: &[Case] = &[
    ("A=1\nB=2\n", &[("A", "1"), ("B", "2")]),
    ("A = 1 \n  B=2", &[("A", "1"), ("B", "2")]),
    ("A: 1\n", &[("A", "1")]),
    ("export A=1\n", &[("A", "1")]),
    ("exported=1\n", &[("exported", "1")]),
    ("A=\nB=2\n", &[("A", ""), ("B", "2")]),
    ("A=\"\"\n", &[("A", "")]),
    ("A=1\r\nB='2'\r\n", &[("A", "1"), ("B", "2")]),
    (
        "# c\n\n#d\nA=1 # e\nB=1#e\nC= # e\nD=x # y # z\n",
        &[("A", "1"), ("B", "1#e"), ("C", "# e"), ("D", "x # y")],
    ),
    (
        "POSTGRES_DB=chat\nPOSTGRES_USER=u\nPG_DSN=\"host=localhost port=5432 dbname=$POSTGRES_DB user=$POSTGRES_USER sslmode=disable\"\n",
        &[
            (
                "PG_DSN",
                "host=localhost port=5432 dbname=chat user=u sslmode=disable",
            ),
            ("POSTGRES_DB", "chat"),
            ("POSTGRES_USER", "u"),
        ],
    ),
    (
        "A_B=x\nC=${A_B}_y\nD=$A_B-$A_B\nE='$A_B'\nF=\"${A_B}\"\n",
        &[
            ("A_B", "x"),
            ("C", "x_y"),
            ("D", "x-x"),
            ("E", "$A_B"),
            ("F", "x"),
        ],
    ),
    (
        "A=x\nB=\\$A\nC=\"\\$A\"\nD=\"\\${A}\"\n",
        &[("A", "x"), ("B", "$A"), ("C", "$A"), ("D", "${A}")],
    ),
    ("A=pa$word1\n", &[("A", "pa$word1")]),
    (
        "A=a$\nB=a$$b\nC='pa$WORD'\n",
        &[("A", "a$"), ("B", "a$$b"), ("C", "pa$WORD")],
    ),
    (
        "A=x\nB=$(A)\nC=$(b)\n",
        &[("A", "x"), ("B", "x)"), ("C", "$(b)")],
    ),
    (
        "A=\"a\\nb\\rc\\td\\\\e\\\"f\"\nB='a\\nb'\n",
        &[("A", "a\nb\rctd\\e\"f"), ("B", "a\\nb")],
    ),
    (
        "A=\"two\nlines\"\nB=1\n",
        &[("A", "two\nlines"), ("B", "1")],
    ),
    ("A='it\\'s'\nB=1\n", &[("A", "it\\'s"), ("B", "1")]),
    ("A=\"x\" # c\nB=1\n", &[("A", "x"), ("B", "1")]),
    ("A=\"x\" B=2\n", &[("A", "x"), ("B", "2")]),
    ("A=a b c\nB=äö\n", &[("A", "a b c"), ("B", "äö")]),
    ("A=x=y;z\n", &[("A", "x=y;z")]),
    ("a.b=1\n", &[("a.b", "1")]),
    ("A='x#y'\nB=x#y\n", &[("A", "x#y"), ("B", "x#y")]),
    ("A=\"'q'\"\nB='\"q\"'\n", &[("A", "'q'"), ("B", "\"q\"")]),
    ("A=${}x\nB=$}\n", &[("A", "${}x"), ("B", "$}")]),
    ("A=x\nB=${A\nC=$A}\n", &[("A", "x"), ("B", "x"), ("C", "x")]),
    ("A=\"\\\\n\"\n", &[("A", "\\n")]),
    ("A=\"a\\\\$b\"\n", &[("A", "a$b")]),
];

#[test]
fn files_mean_what_they_mean_to_godotenv() {
    for (text, wanted) in AS_GODOTENV {
        let file = from_text(text).unwrap_or_else(|why| panic!("{text:?}: {why}"));
        let wanted: HashMap<String, String> = wanted
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(file.values, wanted, "{text:?}");
    }
}

#[test]
fn what_godotenv_refuses_or_makes_up_is_refused() {
    for text in [
        "A=''x''\n",
        "A-B=1\n",
        "A=\"x\n",
        "A='x\n",
        "A\nB=1\n",
        "=x\n",
        "A=$B\n",
        "A=\"${B}\"\n",
        "A=pa$5word\n",
    ] {
        assert!(from_text(text).is_err(), "{text:?}");
    }
}
