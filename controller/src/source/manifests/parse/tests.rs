use super::{super::STACK, *};

fn read(text: &str) -> Parsed {
    let text = text.to_owned();
    let parse = move || parse(&"f.yaml".into(), &text, &ReadContext::default());
    std::thread::Builder::new().stack_size(STACK).spawn(parse).unwrap().join().unwrap()
}

fn said(parsed: &Parsed) -> Vec<String> {
    parsed.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_bad_document_does_not_hide_the_others() {
    let parsed = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\nkind: [\n---\n# only a comment\n---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n  name: b\nspec:\n  ports: 80\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n--- \napiVersion: v1\nkind: List\nitems:\n\
         - apiVersion: v1\n  kind: Namespace\n  metadata: {name: n}\n",
    );
    let ids: Vec<_> = parsed.objects.iter().map(|object| object.id().to_string()).collect();
    assert_eq!(ids, ["Service default/a", "Namespace n"]);
    assert!(parsed.broken);
    assert_eq!(parsed.unknown.len(), 1);
    assert_eq!(parsed.unknown[0].place.line, 16);
    let said = said(&parsed);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[0].starts_with("f.yaml:"), "{said:#?}");
    assert_eq!(
        said[1],
        "f.yaml:14: Service default/b: spec.ports is 80, not a list; the object is left out. Correct the field."
    );
    assert_eq!(parsed.bad.len(), 1);
}

#[test]
fn what_is_no_yaml_is_said_in_words_for_its_author() {
    let parsed = read("apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  name: b\n");
    let want = "f.yaml:5: File f.yaml: line 5 is not valid YAML: duplicate mapping key `name` is not allowed here. \
                Correct it.";
    assert_eq!(said(&parsed), [want]);
}

/// A few lines that stand for millions of values.
#[test]
fn anchors_that_repeat_each_other_are_refused() {
    let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (name, of) in ('b'..='j').zip('a'..) {
        text += &format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 9].join(","));
    }
    let said = said(&read(&text));
    assert!(said[0].contains("its anchors and aliases stand for more than 100000 values"), "{said:#?}");
}

#[test]
fn places_of_fields() {
    let parsed = read(
        "# first\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations:\n    maesh.containo.us/scheme: ftp\n\
         spec:\n  ports:\n  - port: 80\n    name: x\n  - name: y\n    port: 0\n",
    );
    let origin = parsed.objects[0].meta().origin.clone().unwrap();
    for (field, line, column) in [
        ("metadata.annotations[maesh.containo.us/scheme]", 7, 31),
        ("spec.ports[0]", 10, 5),
        ("spec.ports[1].port", 13, 11),
        ("spec.ports[1].appProtocol", 12, 5),
        ("kind", 3, 7),
        ("status", 2, 1),
    ] {
        assert_eq!(origin.place_of(field), Place { line, column }, "{field}");
    }
}

#[test]
fn scalars_without_quotes_are_texts_in_annotations() {
    let parsed = read(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations:\n    maesh.containo.us/bypass: true\n    x: 1\n",
    );
    assert_eq!(parsed.objects.len(), 1);
    assert_eq!(said(&parsed).len(), 1);
}

#[test]
fn json_and_typed_lists() {
    let parsed = read(
        r#"{"apiVersion":"v1","kind":"ServiceList","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#,
    );
    assert_eq!(parsed.objects.len(), 2);
    assert_eq!(said(&parsed), Vec::<String>::new());
}

#[test]
fn several_json_objects_and_directives_are_read_as_kubectl_does() {
    let service =
        |name: &str| format!("{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"{name}\"}}}}");
    let (a, b) = (service("a"), service("b"));
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: c}\n";
    let behind_a = u32::try_from(a.len()).unwrap() + 1;
    for (case, text, places) in [
        ("one on each line", format!("{a}\n{b}\n"), vec![(1, 1), (2, 1)]),
        ("with nothing between", format!("{a}{b}"), vec![(1, 1), (1, behind_a)]),
        (
            "a blank line between, and YAML after it",
            format!("\n{a}\n\n {b}\n---\n{yaml}"),
            vec![(2, 1), (4, 2), (6, 1)],
        ),
        ("a directive", format!("%YAML 1.1\n---\n{yaml}"), vec![(3, 1)]),
        ("YAML in braces", "{apiVersion: v1, kind: Service, metadata: {name: a}}".to_owned(), vec![(1, 1)]),
    ] {
        let parsed = read(&text);
        assert_eq!(said(&parsed), [""; 0], "{case}");
        let origins = parsed.objects.iter().map(|object| object.meta().origin.as_ref().unwrap().place);
        assert_eq!(origins.map(|place| (place.line, place.column)).collect::<Vec<_>>(), places, "{case}");
    }
    let broken = read(&format!("{a}\n{{\"kind\":"));
    assert!(broken.broken && broken.objects.is_empty(), "as a whole: {broken:?}");
}

#[test]
fn a_list_whose_entries_are_none_is_said() {
    for (items, want) in [
        ("items: 5", "items is not a list, so no object is read. Write the objects as a list under items."),
        ("items: {a: b}", "items is not a list, so no object is read. Write the objects as a list under items."),
        ("itmes: []", "items is missing, so no object is read. Write the objects as a list under items."),
        ("items: []", ""),
        ("items: null", ""),
    ] {
        for kind in ["List", "ServiceList"] {
            let parsed = read(&format!("apiVersion: v1\nkind: {kind}\n{items}\n"));
            let said: Vec<_> = parsed.problems.iter().map(|found| found.message.to_string()).collect();
            let want = (!want.is_empty()).then(|| format!("{kind} without a name: {want}"));
            assert_eq!(said, Vec::from_iter(want), "{kind} {items}");
            assert!(parsed.unknown.is_empty(), "{kind} {items}");
        }
    }
}

#[test]
fn a_bad_value_is_found_where_it_stands() {
    let slice: String = (0..70).map(|_| "- {addresses: [10.0.0.1]}\n").collect();
    for (text, line, column) in [
        ("apiVersion: v1\nkind: Service\nmetadata:\n  labels: {a: b}\n  namespace: shop\n  name: Web\n".to_owned(), 6, 9),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  labels: {a: b}\n  namespace: Shop\n  name: web\n".to_owned(), 5, 14),
        (
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a}}\naddressType: IPv4\nendpoints:\n\
                 {slice}- {{addresses: [none]}}\n"
            ),
            76,
            16,
        ),
        (
            "apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: a}\nspec:\n  matches:\n    ports:\n    - 80\n    - x\n"
                .to_owned(),
            8,
            7,
        ),
    ] {
        let parsed = read(&text);
        let [found] = &parsed.problems[..] else { panic!("{:#?}", parsed.problems) };
        assert_eq!((found.line, found.column), (Some(line), Some(column)), "{found}");
    }
    // What is found later, too.
    let ports: String = (0..70).map(|i| format!("  - {{name: p{i}, port: {}}}\n", 1000 + i)).collect();
    let parsed = read(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  ports:\n{ports}"));
    let origin = parsed.objects[0].meta().origin.clone().unwrap();
    assert_eq!(origin.place_of("spec.ports[69].port"), Place { line: 75, column: 23 });
    assert_eq!(origin.place_of("metadata.name"), Place { line: 3, column: 18 });
}

#[test]
fn limits_and_templates_are_said_in_words() {
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    let aliases = format!("a: &a x\nb: [{}]\n", vec!["*a"; 200_000].join(","));
    for (text, want) in [
        (deep.as_str(), "line 1 is not valid YAML: lists and maps in it are too deep inside each other"),
        (aliases.as_str(), "its anchors and aliases stand for more than 100000 values"),
        (
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Values.name }}\n",
            "line 4 is not valid YAML: it is a template; render it first, for instance with helm template",
        ),
    ] {
        let said = said(&read(text));
        assert!(said[0].contains(want), "{said:#?}");
    }
}
