"""Twilio: Media Streams, webhooks and TwiML, signatures, REST."""
