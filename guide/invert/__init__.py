"""What a probe thinks that something looks like, and how little it takes to change its mind."""
