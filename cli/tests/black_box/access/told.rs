//! What is said of access control: by a dry run, by `maesh explain`, by `maesh access matrix`, and by the page about it.

use super::*;

/// Each ServiceAccount that a dry run would deny is named, and so is what would happen to mirrors and fallbacks.
#[test]
fn a_dry_run_names_everybody_and_looks_at_mirrors_and_fallbacks() {
    let shop = Shop::new();
    let (secret, nothing) = (Backend::http_at("secret", "127.0.34.2"), "127.0.34.3:9");
    let text = service("shop", "secret", 8080, "").replace("10.96.0.77", "10.96.0.79")
        + &slices("shop", "secret", &[secret.address])
        + "---\n"
        + &service("shop", "away", 8080, "maesh.containo.us/fallback: secret").replace("10.96.0.77", "10.96.0.78")
        + &slices("shop", "away", &[nothing.parse().unwrap()])
        + "---\n"
        + &pod("shop", "secret-1", "secret", "127.0.34.2", "")
        + &pod("shop", "away-1", "bob", "127.0.34.3", "");
    save(shop.folder.path(), "more.yaml", &text);
    shop.save(&(group("g", "{pathRegex: /api}") + &ann_may(GROUP)));
    let dev = Dev::start_with(shop.folder.path(), &["--acl-dry-run"]);
    let at = dev.served_at("b.shop.maesh");
    dev.served_at("away.shop.maesh");
    let ask_away = || {
        let mut client = Client::connect_from(ANN.parse().unwrap(), at).unwrap();
        client.send(b"GET /api/x HTTP/1.1\r\nHost: away.shop.maesh\r\n\r\n").unwrap()
    };
    for from in [ANN, CYD, OTHER_ANN, NOBODY] {
        assert_eq!(get_from(from, at, "/other"), "200", "{from}");
    }
    assert_eq!(outcome(&ask_away()), "200", "the fallback");
    await_condition("all are named", || {
        let logs = dev.logs();
        let of = |account: &str| logs.lines().any(|line| line.contains("would deny") && line.contains(account));
        let named = ["shop/ann", "shop/cyd", "other/ann", NOBODY].iter().all(|account| of(account));
        let fallback = logs.lines().any(|line| line.contains("would deny") && line.contains("backend=shop/secret"));
        (named && fallback).then_some(())
    });
}

/// `maesh explain` says who is admitted, by what, and who is not; and what it says is what happens.
#[test]
fn explain_says_who_is_admitted() {
    let shop = Shop::new();
    let objects = group("g", "{pathRegex: /api, methods: [GET]}") + &ann_may(GROUP);
    let dev = shop.start(&objects);
    let at = dev.served_at("b.shop.maesh");
    get_from(ANN, at, "/api");
    let url = |path: &str| format!("http://b.shop.maesh:8080{path}");
    let explain = |arguments: &[&str]| {
        let mut command = command(&["explain", "--admin", &dev.admin().to_string()]);
        let output = command.args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let admitted = "shop/ann is admitted by shop/ann";
    let nobody = "denied: the caller is nobody";
    for (from, method, path, code, said) in [
        (ANN, "GET", "/api/7", 0, admitted),
        (ANN, "GET", "/other", 1, "denied: no TrafficTarget admits shop/ann with this"),
        (ANN, "GET", "/api/..%2fother", 1, "denied: no TrafficTarget admits shop/ann"),
        (ANN, "POST", "/api/7", 1, "denied: no TrafficTarget admits shop/ann"),
        (CYD, "GET", "/api/7", 1, "denied: no TrafficTarget admits shop/cyd"),
        (HOST, "GET", "/api/7", 1, nobody),
        (NOBODY, "GET", "/api/7", 1, nobody),
    ] {
        let answer = ask(from, at, method, path, "");
        assert_eq!(answer.status == 200, code == 0, "{from} {method} {path}: {}", outcome(&answer));
        let (left, text) = explain(&["--from", from, method, &url(path)]);
        assert!(left == Some(code) && text.contains(said), "{from} {method} {path}: {left:?} {text}");
        let refusal = if path.contains("%2f") {
            "400 on port 8080 with reason bad_request"
        } else {
            "403 on port 8080 with reason denied"
        };
        assert_eq!(text.contains(&format!("answers {refusal}")), code != 0, "{text}");
    }
    let (_, text) = explain(&["--from", ANN, "b.shop.maesh"]);
    assert!(text.contains("depends on what is called: write a method and a URL with its path"), "{text}");
}

/// `maesh access matrix` lists who may call whom, a part at a time.
#[test]
fn the_matrix_says_who_may_call_whom() {
    let shop = Shop::new();
    let many: String = (0..205)
        .map(|number| {
            let name = format!("many-{number:03}");
            let more = service("zoo", &name, 9000, "").replace("10.96.0.77", &format!("10.96.1.{}", number + 1));
            more + &slices("zoo", &name, &["127.0.34.77:80".parse().unwrap()]) + "---\n"
        })
        .collect();
    save(shop.folder.path(), "many.yaml", &(many + &pod("zoo", "animal", "animal", "127.0.34.77", "")));
    let objects = group("g", "{pathRegex: /api, methods: [GET]}") + &ann_may(GROUP);
    let dev = shop.start(&objects);
    let matrix = |arguments: &[&str]| {
        let mut command = command(&["access", "matrix", "--admin", &dev.admin().to_string()]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = matrix(&["shop"]);
    assert!(text.starts_with("access control is on in maesh dev"), "{text}");
    let line = text.lines().find(|line| line.starts_with("shop/b ")).unwrap_or_else(|| panic!("{text}"));
    let cells: Vec<&str> = line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    assert_eq!(cells[..4], ["shop/b", "8080/http", "shop/bob", "shop/ann"], "{line}");
    assert!(cells[4].contains("GET") && cells[4].contains("/api") && cells[5] == "shop/ann", "{line}");
    let all: serde_json::Value = serde_json::from_str(&matrix(&["-o", "json"])).unwrap();
    let rows = all["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &all["next"]), (206, &serde_json::Value::Null));
    assert_eq!(rows[205]["account"], "zoo/animal");
    assert!(rows[205]["grants"].as_array().unwrap().is_empty());
    assert!(matrix(&["shop", "-o", "yaml"]).contains("\nrows:\n"));

    for (arguments, says) in [
        (&["shp"][..], "no Service of namespace \"shp\" is in the mesh; did you mean shop?"),
        (&["b"], "Service b is in shop, and the argument is a namespace: maesh access matrix shop"),
        (&["shop/b"], "the argument is a namespace: maesh access matrix shop"),
        (
            &["-n", "shop"],
            "--namespace shop says in which namespace of a cluster the mesh runs, and a `maesh dev` runs in none",
        ),
    ] {
        let mut command = command(&["access", "matrix", "--admin", &dev.admin().to_string()]);
        let output = command.args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

/// Nothing is denied in a dry run, and what would be is counted and logged.
#[test]
fn a_dry_run_denies_nothing_and_says_what_it_would() {
    let shop = Shop::new();
    shop.save(&(group("g", "{pathRegex: /api}") + &ann_may(GROUP)));
    let dev = Dev::start_with(shop.folder.path(), &["--acl-dry-run"]);
    let at = dev.served_at("b.shop.maesh");
    for (from, path) in [(ANN, "/api"), (ANN, "/other"), (CYD, "/api"), (NOBODY, "/")] {
        assert_eq!(get_from(from, at, path), "200", "{from} {path}");
    }
    let line = "maesh_proxy_access_dry_run_denials_total{service=\"b\",namespace=\"shop\"} 3";
    await_condition("the three are counted, once it is believed that no pod has the address of the last", || {
        get(dev.admin(), "localhost", "/metrics").unwrap().body.contains(line).then_some(())
    });
    await_condition("it is logged", || {
        let logs = dev.logs();
        (logs.contains("access control would deny this") && logs.contains("/other") && logs.contains("shop/ann"))
            .then_some(())
    });
}

/// Who is denied can be read in the log, and nobody can fill it.
#[test]
fn who_is_denied_is_logged_once_in_a_while() {
    let shop = Shop::new();
    shop.save(&(group("g", "{pathRegex: /api}") + &ann_may(GROUP)));
    let dev = Dev::start_with(shop.folder.path(), &["--acl"]);
    let at = dev.served_at("b.shop.maesh");
    for _ in 0..20 {
        for (from, path) in [(ANN, "/other"), (CYD, "/api"), (NOBODY, "/")] {
            assert_eq!(get_from(from, at, path), "403 denied", "{from} {path}");
        }
    }
    await_condition("each is logged", || {
        let logs = dev.logs();
        ["shop/ann", "shop/cyd", "none"].iter().all(|account| logs.contains(account)).then_some(())
    });
    assert_eq!(dev.logs().matches("access control denies this").count(), 3, "{}", dev.logs());
    assert_eq!(get_from(ANN, at, "/api"), "200");
}

/// The manifest of docs/tasks/access-control.md does what the page says.
#[test]
fn the_page_about_access_control_holds() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::http_at("prices", "127.0.34.9");
    let mut text = service("shop", "b", 8080, "") + &slices("shop", "b", &[backend.address]) + "---\n";
    text += &(pod("shop", "prices", "prices", "127.0.34.9", "")
        + &pod("shop", "web", "web", ANN, "")
        + &pod("shop", "cyd", "cyd", CYD, ""));
    save(folder.path(), "shop.yaml", &text);
    let text = page("docs/tasks/access-control.md");
    save(folder.path(), "acl.yaml", blocks(section(&text, "## The objects"), "yaml")[0]);
    let dev = Dev::start_with(folder.path(), &["--acl"]);
    assert!(dev.early.is_empty(), "{:#?}", dev.early);
    let at = dev.served_at("b.shop.maesh");
    for (from, method, path, want) in [
        (ANN, "GET", "/prices/7", "200"),
        (ANN, "DELETE", "/prices/7", "403 denied"),
        (ANN, "GET", "/admin", "403 denied"),
        (ANN, "GET", "/prices/..%2fadmin", "400 bad_request"),
        (CYD, "GET", "/prices/7", "403 denied"),
    ] {
        assert_eq!(outcome(&ask(from, at, method, path, "")), want, "{from} {method} {path}");
    }
}
