"""The web page of `vocsep page`: songs in, stems to listen to in step, all on this machine."""
