"""A cURL command read (`parser`) and written (`writer`)."""
