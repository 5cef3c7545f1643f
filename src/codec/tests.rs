use super::*;

fn encoded(value: &Value) -> Encoded {
    JsonCodec.encode(value).unwrap_or_else(|error| unreachable!("{error}"))
}

#[test]
fn json_is_doubtful_where_it_holds_a_null_or_is_too_deep_to_be_read() {
    for (text, is_doubtful) in
        [("null", true), (r#"{"a":[1,null]}"#, true), (r#"{"a":[[],{},0.5],"null":"null"}"#, false)]
    {
        let value: Value = text.parse().unwrap_or_default();
        let encoded = encoded(&value);
        assert_eq!(encoded.bytes, text);
        assert_eq!(encoded.is_doubtful, is_doubtful, "{text}");
    }
    for levels in 120..135 {
        let wide = Value::from(vec![Value::Array(Vec::new()); 200]);
        let deep = (2..levels).fold(wide, |value, _| Value::from(vec![value]));
        let encoded = encoded(&deep);
        let is_read = serde_json::from_slice::<Value>(&encoded.bytes).is_ok();
        assert_eq!(encoded.is_doubtful, !is_read, "{levels}");
    }
}
