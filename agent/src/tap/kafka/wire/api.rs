//! The APIs that the tap knows something of. A version that is not in this table is not read; what
//! then happens depends on what the API carries.

/// What an API carries that matters to the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Addresses of brokers, which must be rewritten. Clients are offered no newer version than
    /// the tap knows; a connection that uses one all the same is closed.
    Addresses,
    /// Records besides. An unknown version passes unread, and is a `gap`, where no address can be in
    /// it.
    RecordsAndAddresses,
    /// State of groups, transactions, topics. All versions pass; those that the tap does not know
    /// are counted.
    State,
}

/// One API: its key and the versions that the tap can read.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) name: &'static str,
    pub(crate) carries: Carries,
    pub(crate) oldest: i16,
    pub(crate) newest: i16,
    /// From this version on messages have compact types and tagged fields.
    pub(crate) flexible: i16,
}

impl Api {
    pub(crate) fn knows(&self, version: i16) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// Whether clients may be offered no newer version than the tap knows.
    pub(crate) fn is_clamped(&self) -> bool {
        self.carries != Carries::State
    }

    pub(crate) fn carries_addresses(&self) -> bool {
        matches!(self.carries, Carries::Addresses | Carries::RecordsAndAddresses)
    }
}

/// What the tap knows of an API; `None` for one that it only passes on.
pub(crate) fn api(key: i16) -> Option<&'static Api> {
    APIS.binary_search_by_key(&key, |api| api.key).ok().map(|at| &APIS[at])
}

macro_rules! apis {
    ($($constant:ident = $key:literal $name:literal $carries:ident $oldest:literal..$newest:literal flexible $flexible:literal;)*) => {
        /// API keys by name.
        pub(crate) mod key {
            $(pub(crate) const $constant: i16 = $key;)*
        }

        /// In the order of their keys.
        const APIS: &[Api] = &[$(Api {
            key: $key,
            name: $name,
            carries: Carries::$carries,
            oldest: $oldest,
            newest: $newest,
            flexible: $flexible,
        }),*];
    };
}

apis! {
    PRODUCE = 0 "Produce" RecordsAndAddresses 3..13 flexible 9;
    FETCH = 1 "Fetch" RecordsAndAddresses 4..18 flexible 12;
    METADATA = 3 "Metadata" Addresses 0..13 flexible 9;
    OFFSET_COMMIT = 8 "OffsetCommit" State 2..10 flexible 8;
    OFFSET_FETCH = 9 "OffsetFetch" State 1..10 flexible 6;
    FIND_COORDINATOR = 10 "FindCoordinator" Addresses 0..6 flexible 3;
    JOIN_GROUP = 11 "JoinGroup" State 0..9 flexible 6;
    HEARTBEAT = 12 "Heartbeat" State 0..4 flexible 4;
    LEAVE_GROUP = 13 "LeaveGroup" State 0..5 flexible 4;
    SYNC_GROUP = 14 "SyncGroup" State 0..5 flexible 4;
    SASL_HANDSHAKE = 17 "SaslHandshake" State 0..1 flexible 32767;
    API_VERSIONS = 18 "ApiVersions" State 0..5 flexible 3;
    CREATE_TOPICS = 19 "CreateTopics" State 2..7 flexible 5;
    DELETE_TOPICS = 20 "DeleteTopics" State 1..6 flexible 4;
    INIT_PRODUCER_ID = 22 "InitProducerId" State 0..5 flexible 2;
    END_TXN = 26 "EndTxn" State 0..5 flexible 3;
    TXN_OFFSET_COMMIT = 28 "TxnOffsetCommit" State 0..6 flexible 3;
    SASL_AUTHENTICATE = 36 "SaslAuthenticate" State 0..2 flexible 2;
    DESCRIBE_CLUSTER = 60 "DescribeCluster" Addresses 0..2 flexible 0;
    CONSUMER_GROUP_HEARTBEAT = 68 "ConsumerGroupHeartbeat" State 0..1 flexible 0;
    DESCRIBE_TOPIC_PARTITIONS = 75 "DescribeTopicPartitions" State 0..0 flexible 0;
    SHARE_FETCH = 78 "ShareFetch" RecordsAndAddresses 1..2 flexible 0;
    SHARE_ACKNOWLEDGE = 79 "ShareAcknowledge" Addresses 1..2 flexible 0;
    STREAMS_GROUP_HEARTBEAT = 88 "StreamsGroupHeartbeat" State 0..1 flexible 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_is_found_by_its_key() {
        assert!(APIS.is_sorted_by_key(|api| api.key));
        for known in APIS {
            assert_eq!(api(known.key).map(|api| api.name), Some(known.name));
        }
        assert!(api(2).is_none(), "ListOffsets is only passed on");
        assert!(!api(key::SASL_HANDSHAKE).unwrap().is_flexible(1));
    }

    #[test]
    fn transactions_v2_need_three_apis_as_a_unit() {
        // A client that sees `transaction.version` 2 sends no AddPartitionsToTxn: these versions
        // must be on offer.
        assert!(api(key::PRODUCE).unwrap().newest >= 12);
        assert!(api(key::TXN_OFFSET_COMMIT).unwrap().newest >= 5);
        assert!(api(key::END_TXN).unwrap().newest >= 5);
    }
}
