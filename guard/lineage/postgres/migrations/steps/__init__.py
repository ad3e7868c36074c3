"""The steps. One that was released is never changed: a further one follows it."""
