# What `capnp_rpc.py` serves.
@0xb7f2d1c9a4e3850f;

interface Bench {
  sum @0 (a :Int64, b :Int64) -> (total :Int64);
  echo @1 (data :Data) -> (data :Data);
  items @2 (count :Int64, sink :Sink);
  hold @3 (a :Int64, b :Int64);
  release @4 ();

  interface Sink {
    take @0 (item :Int64) -> stream;
  }
}
