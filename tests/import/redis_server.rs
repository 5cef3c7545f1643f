//! A Redis server of one test.

use axum_typed_session::RedisStore;

use crate::servers::{self, Server, comes_true, find, free_port};

/// A server that ends with this.
pub struct Redis {
    port: u16,
    _server: Server,
}

impl Redis {
    pub fn start() -> Option<Self> {
        let program = find("redis-server", "import")?;
        let (port, folder) = (free_port(0), servers::folder("import"));
        let at = port.to_string();
        let arguments = ["--bind", "127.0.0.1", "--save", "", "--port", &at];
        let server = Server::start(&folder, &program.display().to_string(), &arguments).unwrap();
        let redis = Self { port, _server: server };
        let ping = || redis.try_ask::<String>(&redis::cmd("PING")).is_ok();
        assert!(comes_true(ping), "redis-server does not answer");
        Some(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn try_ask<R: redis::FromRedisValue>(&self, command: &redis::Cmd) -> redis::RedisResult<R> {
        command.query(&mut redis::Client::open(self.url())?.get_connection()?)
    }

    pub fn ask<R: redis::FromRedisValue>(&self, command: &redis::Cmd) -> R {
        self.try_ask(command).unwrap()
    }

    pub fn ask_all(&self, commands: &redis::Pipeline) {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        commands.exec(&mut connection).unwrap();
    }

    pub fn store(&self) -> RedisStore {
        RedisStore::connect_lazy(self.url()).unwrap()
    }
}
